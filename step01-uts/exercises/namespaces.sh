#!/bin/sh
# namespaces.sh PID: prints the namespaces of process PID that aren't those of this shell, one name
# a line, as they are called in /proc/PID/ns: uts, pid, mnt, user, net, ipc, cgroup, time.

for name in uts pid mnt user net ipc cgroup time; do
    [ "$(readlink "/proc/$1/ns/$name")" = "$(readlink "/proc/$$/ns/$name")" ] || echo "$name"
done
