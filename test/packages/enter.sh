#!/usr/bin/env bash
# Runs a command in a root as if it were a machine's own, with harmless devices and empty /run; nothing of the machine
# outside is in reach. It must be called in namespaces of its own for mounts, processes and control groups:
#
#   unshare --mount --pid --fork --kill-child --uts --ipc --net --cgroup --propagation private -- \
#     test/packages/enter.sh ROOT COMMAND [ARGUMENT...]
set -euo pipefail
root=$1
shift

mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in 'null 1 3' 'zero 1 5' 'full 1 7' 'random 1 8' 'urandom 1 9' 'tty 5 0'; do
  read -r name major minor <<<"$node"
  mknod -m 666 "$root/dev/$name" c "$major" "$minor"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
hostname kmp2mqtt-test
cd "$root"
pivot_root . mnt
umount --lazy /mnt
mount --make-rshared / # as it is on a machine; systemd hands credentials over by that
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"
