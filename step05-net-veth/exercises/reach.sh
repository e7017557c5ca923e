#!/bin/bash
# Exercise 5.6: on the host, a program listens on 127.0.0.1 only, at the port $1. It tells its secret
# to whoever connects, since nobody outside of the machine can reach it. This script runs inside a
# container of step 4. Make it print the secret. There is bash inside, but neither nc nor curl.

exec 3<>/dev/tcp/127.0.0.1/"$1"
cat <&3
