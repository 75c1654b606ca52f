#!/usr/bin/env bash
# Boots systemd of a Debian root in namespaces of its own, as a machine would: its processes, mounts, network (loopback
# only), host name and control groups are apart from the rest, its devices are the harmless ones. Needs root. Ends when
# that systemd ends, or with the process that started this one.
#
#   test/packages/boot.sh ROOT
set -euo pipefail

if [ "${2-}" != inside ]; then
  # A control group for all of it, in the second version of the kernel's, whatever this machine has mounted itself.
  groups=$(mktemp -d)
  mount -t cgroup2 none "$groups"
  group=$groups/kmp2mqtt-test-$$
  mkdir "$group"
  echo $$ >"$group/cgroup.procs"
  umount "$groups"
  rmdir "$groups"
  exec unshare --mount --pid --fork --kill-child --uts --ipc --net --cgroup --propagation private -- "$0" "$1" inside
fi

root=$1
hostname kmp2mqtt-test
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
cd "$root"
pivot_root . mnt
umount --lazy /mnt
exec env -i PATH=/usr/sbin:/usr/bin container=kmp2mqtt-test /lib/systemd/systemd --log-target=console --show-status=no
