#!/bin/sh
# Exercise 8.7: prints how many bytes of files a container's own layer holds after the shell command $1 has
# run in it, as one number: `copied.sh 'rm /usr/bin/ls'`. The program step08-overlay is in PATH, and saves
# that layer as an archive if it is asked to. Nothing else may be printed.

saved=$(mktemp)
step08-overlay --save "$saved" -- sh -c "$1" >/dev/null 2>&1
tar -tvf "$saved" | awk '/^-/ { bytes += $3 } END { print bytes + 0 }'
rm "$saved"
