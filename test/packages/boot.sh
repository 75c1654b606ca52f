#!/usr/bin/env bash
# Boots the systemd of a Debian root as a machine would, in namespaces of its own: processes, mounts, network (loopback
# only), host name and control groups are apart from this machine's. Needs root. It ends with that systemd, or ends it
# when it is ended itself. The process number of that systemd goes into FILE, for nsenter.
#
#   test/packages/boot.sh ROOT FILE
set -euo pipefail

# A control group for all of it, in the second version of the kernel's, whichever this machine itself has mounted.
groups=$(mktemp -d)
mount -t cgroup2 none "$groups"
group=$groups/kmp2mqtt-test-$$ init=

finish() {
  [ -z "$init" ] || kill -KILL "$init" 2>/dev/null || true # takes all of its namespace along
  wait
  for _ in $(seq 50); do # what was in the group may take a moment to be gone
    ! find "$group" -depth -type d -delete 2>/dev/null || break
    sleep 0.1
  done
  umount "$groups"
  rmdir "$groups"
}
trap finish EXIT
trap 'exit 0' TERM INT

mkdir "$group"
(
  sh -c 'echo $PPID' >"$group/cgroup.procs"
  exec unshare --mount --pid --fork --kill-child --uts --ipc --net --cgroup --propagation private -- \
    "$(dirname "$0")/enter.sh" "$1" env container=kmp2mqtt-test /lib/systemd/systemd --show-status=no
) &
for _ in $(seq 100); do
  read -r init _ <"/proc/$!/task/$!/children" || true
  [ "$(readlink "/proc/$init/exe")" != /usr/lib/systemd/systemd ] || break
  sleep 0.1
done
echo "$init" >"$2"
wait
