# Makes the OCI layout ./image, tagged `small`: a static busybox in two layers. The second removes a file
# of the first and replaces another.
busybox=$(command -v busybox) || { echo "there is no busybox: install the package busybox-static"; exit 77; }
command -v umoci >/dev/null || { echo "there is no umoci"; exit 77; }
if ldd "$busybox" >/dev/null 2>&1; then echo "busybox isn't static: install the package busybox-static"; exit 77; fi

umoci init --layout image
umoci new --image image:small
umoci unpack --image image:small bundle
root=bundle/rootfs
mkdir -p $root/bin $root/etc $root/home/ada $root/srv $root/root
mkdir -m 1777 $root/tmp
cp "$busybox" $root/bin/busybox
for name in $("$busybox" --list); do
  [ "$name" = busybox ] || ln -s busybox "$root/bin/$name"
done
printf 'root:x:0:0:root:/root:/bin/sh\nada:x:1001:1002:Ada:/home/ada:/bin/sh\n' >$root/etc/passwd
printf 'root:x:0:\nada:x:1002:\nstaff:x:50:ada\n' >$root/etc/group
chown 1001:1002 $root/home/ada
echo first >$root/srv/replaced
echo first >$root/srv/removed
umoci repack --image image:small bundle
rm -r bundle

umoci unpack --image image:small bundle
rm bundle/rootfs/srv/removed
echo second >bundle/rootfs/srv/replaced
umoci repack --image image:small bundle
rm -r bundle
umoci config --image image:small --config.env FROM_IMAGE=yes --config.env SPACED='a b  c' \
  --config.workingdir /srv --config.cmd cat --config.cmd replaced
chmod -R a+rX image
