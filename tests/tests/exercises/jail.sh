# jail.sh DIR PROGRAM COMMAND…: makes DIR a root with the machine's programs and libraries and nothing
# else, and runs PROGRAM in there, after chroot(2). In a mount namespace that is the jail's alone.
set -e
cp "$2" "$1.program"
mount -t tmpfs jail "$1"
cd "$1"
for dir in bin lib lib32 lib64 sbin; do
    if [ -L "/$dir" ]; then cp -P "/$dir" .; elif [ -d "/$dir" ]; then mkdir "$dir" && mount --rbind "/$dir" "$dir"; fi
done
mkdir usr && mount --rbind /usr usr
cp "$1.program" program
shift 2
exec chroot . /program "$@"
