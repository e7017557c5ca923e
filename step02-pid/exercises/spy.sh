#!/bin/sh
# spy.sh: runs inside of step 2, as in
#   step02-pid -- sh spy.sh
# A process of the host has a variable SECRET in its environment. Prints its value.

grep -az '^SECRET=' /proc/[0-9]*/environ 2>/dev/null | tr '\0' '\n' | sed 's/.*SECRET=//'
