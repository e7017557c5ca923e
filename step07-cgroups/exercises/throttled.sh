#!/bin/sh
# Exercise 7.5: prints how much of its time a program had to wait because its quota of CPU time was used
# up, as a whole number of percent: `throttled.sh 0.1 COMMAND…` runs COMMAND with `step07-cgroups --cpus
# 0.1`. That program is in PATH, and what it says in the end, on standard error, holds the number of
# seconds. Nothing else may be printed.

quota=$1
shift
begin=$(date +%s%N)
said=$(step07-cgroups --cpus "$quota" -- "$@" 2>&1 >/dev/null)
end=$(date +%s%N)
waited=$(echo "$said" | sed -n 's/.*throttled [0-9]* times for \([0-9.]*\) s.*/\1/p')
awk "BEGIN { printf \"%d\\n\", 100 * $waited / (($end - $begin) / 1e9) }"
