#!/usr/bin/env bash
# What test/packages.sh does with the OpenRC service, inside a root with namespaces of its own.
set -Eeuo pipefail
trap 'echo "test/packages/openrc.sh: line $LINENO: $BASH_COMMAND" >&2; cat /var/log/kmp2mqtt.log >&2 || true' ERR

fail() {
  echo "test/packages/openrc.sh: $*" >&2
  exit 1
}
of_service() { # the processes that are the bridge
  local exe
  for exe in /proc/[0-9]*/exe; do
    [ "$(readlink "$exe")" != /usr/bin/kmp2mqtt ] || basename "${exe%/exe}"
  done
}

ip link set lo up
mkdir -p /run/openrc/{daemons,exclusive,failed,hotplugged,inactive,options,scheduled,started,starting,stopping,tmp,wasinactive}
touch /run/openrc/softlevel

! said=$(rc-service kmp2mqtt start 2>&1) || fail "it started without METERS"
grep -q 'set METERS in /etc/kmp2mqtt/kmp2mqtt.env' <<<"$said" || fail "it does not say what is missing: $said"

echo 'METERS="house=sim://403?interval=5s&label=Heat%20meter"' >>/etc/kmp2mqtt/kmp2mqtt.env
rc-service --quiet kmp2mqtt start
for _ in $(seq 300); do # it says nothing when it is ready
  ! first=$(mosquitto_sub -h 127.0.0.1 -W 30 -C 1 -t kmp2mqtt/house 2>&1) || break
  sleep 0.1
done
grep -q '"energy_' <<<"$first" || fail "no reading: $first"
pid=$(of_service)
[ "$(stat --format %U "/proc/$pid")" = kmp2mqtt ] || fail "it runs as $(stat --format %U "/proc/$pid")"
grep -q "^Groups:.*$(getent group dialout | cut -d : -f 3)" "/proc/$pid/status" || fail "it is not in dialout"
[ "$(stat --format '%a %U' /var/lib/kmp2mqtt)" = '700 kmp2mqtt' ] || fail "its data can be read by others"

kill -KILL "$pid"
for _ in $(seq 300); do
  again=$(of_service)
  [ -z "$again" ] || [ "$again" = "$pid" ] || break
  sleep 0.1
done
[ "${again:-$pid}" != "$pid" ] || fail "a bridge that crashed is not started again"
grep -q 'bridge started' /var/log/kmp2mqtt.log || fail "it does not log"
rc-service --quiet kmp2mqtt stop
[ -z "$(of_service)" ] || fail "it does not stop"
