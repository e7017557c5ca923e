# Makes the OCI layout ./image, tagged `server`, and of the same layers ./docker.tar: Debian with nginx
# and redis, by Debian's own tools. Its entrypoint is a script, as in most published images.
for tool in debootstrap skopeo umoci; do
  command -v $tool >/dev/null || { echo "there is no $tool"; exit 77; }
done
umoci init --layout image
umoci new --image image:server
umoci unpack --image image:server bundle
debootstrap --variant=minbase --include=nginx-light,redis-server bookworm bundle/rootfs >debootstrap.log 2>&1 ||
  { echo "debootstrap can't make a Debian here: $(tail -n 1 debootstrap.log)"; exit 77; }
rm -rf bundle/rootfs/var/cache/apt/archives/*.deb bundle/rootfs/var/lib/apt/lists/* debootstrap.log
umoci repack --image image:server bundle
rm -r bundle

umoci unpack --image image:server bundle
root=bundle/rootfs
echo 'from the second layer' >$root/var/www/html/index.html
rm -r $root/usr/share/doc
printf '#!/bin/sh\nhostname -I\nexec "$@"\n' >$root/entrypoint.sh
chmod 755 $root/entrypoint.sh
umoci repack --image image:server bundle
rm -r bundle
umoci config --image image:server --config.entrypoint /entrypoint.sh --config.workingdir /var/www/html \
  --config.cmd nginx --config.cmd -g --config.cmd 'daemon off;'
skopeo copy --quiet oci:image:server docker-archive:docker.tar:server:latest
chmod -R a+rX image
