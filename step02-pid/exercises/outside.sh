#!/bin/sh
# outside.sh PID NUMBER: process PID, as it is numbered here, is in some PID namespace. Prints the
# number that the process with number NUMBER in there has here.

there=$(readlink "/proc/$1/ns/pid")
for process in /proc/[0-9]*; do
    [ "$(readlink "$process/ns/pid" 2>/dev/null)" = "$there" ] || continue
    inside=$(sed -n 's/^NSpid:.*[[:space:]]//p' "$process/status")
    [ "$inside" = "$2" ] && echo "${process#/proc/}"
done
exit 0
