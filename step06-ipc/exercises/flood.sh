#!/bin/sh
# Exercise 6.6: this script runs inside a container of step 6, as a user who is nobody outside. Make
# it fill the machine: $1 processes shall run at the same time and stay. (Start just these. A bomb that
# doubles for ever proves no more, and the test allows only some thousands.)

n=0
while [ "$n" -lt "$1" ]; do
    sleep 1000 &
    n=$((n + 1))
done
wait
