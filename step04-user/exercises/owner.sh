#!/bin/sh
# owner.sh PID ID: prints which user id here stands for user id ID in the user namespace of process
# PID; "nobody" if none does.

while read -r inside outside count; do
    if [ "$2" -ge "$inside" ] && [ "$2" -lt $((inside + count)) ]; then
        echo $((outside + $2 - inside))
        exit
    fi
done <"/proc/$1/uid_map"
echo nobody
