#!/bin/sh
# rename-the-host.sh NAME: runs inside of step 1, as in
#   step01-uts -- sh rename-the-host.sh NAME
# and gives the host the name NAME, although this process has a UTS namespace of its own.

nsenter --target "$PPID" --uts hostname "$1"
