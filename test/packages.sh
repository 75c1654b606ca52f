#!/usr/bin/env bash
# Builds what .goreleaser.yaml says, twice, and tries the packages on real systems: the deb and its service on a Debian
# that is booted with systemd, in namespaces of its own; the rpm with rpm; the OpenRC service of the apk with OpenRC.
# Needs root, Go and Debian's debootstrap, which it installs; the Debian roots are kept in $CACHE for the next time.
#
#   CACHE    where those are kept, /var/tmp/kmp2mqtt-packages; delete it to get newer ones
#   MIRROR   where Debian comes from, http://deb.debian.org/debian
set -Eeuo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin # Debian keeps debootstrap there, out of a user's path

CACHE=${CACHE:-/var/tmp/kmp2mqtt-packages}
MIRROR=${MIRROR:-http://deb.debian.org/debian}
export MAINTAINER='kmp2mqtt tests <tests@example.org>' GOFLAGS=-buildvcs=false
unset METERS DATA_DIR MQTT_URL RELEASE_OWNER VERSION COMMIT
work=$(mktemp -d)
machine= # the process that runs the booted Debian

finish() {
  local status=$?
  if [ -n "$machine" ]; then
    [ $status = 0 ] || inside journalctl --no-pager --lines 500 | grep -v -E "[[:space:]]0x|^.{30,60}(runtime|goroutine|created by)" | tail -n 60 || true
    kill "$machine" 2>/dev/null || true
    wait "$machine" || true
  fi
  rm -rf --one-file-system "$work"
}
trap finish EXIT
trap 'echo "test/packages.sh: line $LINENO: $BASH_COMMAND" >&2' ERR

fail() {
  echo "test/packages.sh: $*" >&2
  exit 1
}

# Waits up to half a minute until a command succeeds; what it is about comes first.
until_true() { # WHAT COMMAND [ARGUMENT...]
  local what=$1
  shift
  for _ in $(seq 300); do
    ! "$@" >/dev/null 2>&1 || return 0
    sleep 0.1
  done
  fail "not within half a minute: $what"
}

has() { grep -q -F -e "$2" <<<"$1" || fail "there is no '$2' in: ${1:0:2000}"; }

[ "$(id -u)" = 0 ] || fail "needs root, for Debian roots and namespaces: sudo env \"PATH=\$PATH\" test/packages.sh"
command -v debootstrap >/dev/null || {
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap
}

# ------------------------------------------------------------------------------------------------ builds

# goreleaser is built once, so that two builds do not race for it.
echo "== goreleaser"
go build -C tools/release -o "$work/goreleaser" github.com/goreleaser/goreleaser/v2
go test -C tools/release ./...
"$work/goreleaser" check --quiet

# A copy of what git knows of this tree, as a repository with one commit and one tag, the same in every place.
copy() { # DIRECTORY VERSION
  mkdir -p "$1"
  git ls-files -z --cached | tar --create --null --files-from - --ignore-failed-read | tar --extract --touch --directory "$1"
  (
    cd "$1"
    export GIT_AUTHOR_DATE='2026-01-02T03:04:05Z' GIT_COMMITTER_DATE='2026-01-02T03:04:05Z' GIT_CONFIG_GLOBAL=/dev/null
    git init --quiet
    git remote add origin . # goreleaser asks for one, and takes nothing from it
    git add --all
    git -c user.name=test -c user.email=test@example.org -c commit.gpgsign=false commit --quiet --message "$2"
    git -c user.name=test -c user.email=test@example.org tag "v$2"
  )
}

build() { # DIRECTORY
  (cd "$1" && "$work/goreleaser" release --clean >"$work/goreleaser.log" 2>&1) ||
    fail "goreleaser failed: $(tail -n 30 "$work/goreleaser.log")"
}

echo "== all platforms"
first=$work/first
copy "$first" 1.0.0
build "$first"
dist=$first/dist
(cd "$dist" && sha256sum --quiet --check SHA256SUMS)
want=(
  kmp2mqtt_1.0.0_{linux_{amd64,arm64,armv7,armv6,386,riscv64,mipsle},macos_{amd64,arm64},freebsd_{amd64,arm64}}.tar.gz
  kmp2mqtt_1.0.0_windows_{amd64,arm64}.zip
  kmp2mqtt_1.0.0_{linux_{amd64,arm64,armv7,armv6,386,riscv64,mipsle},macos_{amd64,arm64},freebsd_{amd64,arm64},windows_{amd64,arm64}}.cdx.json
  kmp2mqtt_1.0.0_{amd64,arm64,armhf,i386,riscv64}.deb
  kmp2mqtt-1.0.0-1.{x86_64,aarch64,armv7hl,i386,riscv64}.rpm
  kmp2mqtt_1.0.0_{x86_64,aarch64,armv7,armhf,x86,riscv64}.apk
)
diff <(printf '%s\n' "${want[@]}" | sort) <(cut -c 67- "$dist/SHA256SUMS" | sort) || fail "dist does not hold what it should"
for file in README.md LICENSE NOTICE CHANGELOG.md .env.example docs/topics.md deploy/linux/kmp2mqtt.service kmp2mqtt; do
  tar -tzf "$dist/kmp2mqtt_1.0.0_linux_amd64.tar.gz" "kmp2mqtt_1.0.0_linux_amd64/$file" >/dev/null
done
echo "${#want[@]} files"

echo "== bills of materials"
for program in "$dist"/*/kmp2mqtt "$dist"/*/kmp2mqtt.exe; do
  sum=$(sha256sum "$program" | cut -d ' ' -f 1)
  sbom=$(grep -l "$sum" "$dist"/*.cdx.json) || fail "no bill of materials has the hash of $program"
  diff <(go version -m "$program" | awk '$1 == "dep" { print $2 "@" $3 }' | sort) \
    <(sed -n 's|.*"purl": "pkg:golang/\(.*\)".*|\1|p' "$sbom" | grep -v ^std@ | sort) || fail "$sbom is not what is in $program"
done

echo "== the same again, elsewhere"
second=$work/a/second/place
copy "$second" 1.0.0
AMD64_ONLY=1 GOCACHE=$work/gocache build "$second"
while read -r sum file; do
  grep -q "^$sum  $file\$" "$dist/SHA256SUMS" || fail "$file comes out differently the second time"
  echo "${sum:0:16}  $file"
done <"$second/dist/SHA256SUMS"
rm -rf "$work/gocache"

next=$work/next
copy "$next" 1.1.0
AMD64_ONLY=1 build "$next"

# ------------------------------------------------------------------------------------------------ systems

# bookworm is what a small machine has, and a client to see what the bridge says; tools has what examines packages, too.
machine_has=systemd-sysv,udev,dbus,mosquitto-clients
tools_have='lintian rpm openrc iproute2 umockdev'
if [ "$(cat "$CACHE/has" 2>/dev/null)" != "$machine_has $tools_have" ]; then
  echo "== Debian roots into $CACHE"
  rm -rf --one-file-system "$CACHE/bookworm" "$CACHE/tools" "$CACHE/has"
  mkdir -p "$CACHE"
  # What it mounts goes with its namespace, however it ends.
  unshare --mount --propagation private -- debootstrap --variant=minbase --include=$machine_has bookworm "$CACHE/bookworm" "$MIRROR" >"$CACHE/log" ||
    fail "debootstrap failed: $(tail "$CACHE/log")"
  cp -ax "$CACHE/bookworm" "$CACHE/tools"
  # shellcheck disable=SC2086 # several names
  chroot "$CACHE/tools" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $tools_have \
    >"$CACHE/log" 2>&1 || fail "apt-get failed: $(tail "$CACHE/log")"
  rm -f "$CACHE"/*/var/cache/apt/archives/*.deb
  echo "$machine_has $tools_have" >"$CACHE/has"
fi
root=$work/root tools=$work/tools
cp -ax "$CACHE/bookworm" "$root"
cp -ax "$CACHE/tools" "$tools"
cp "$dist"/kmp2mqtt_1.0.0_amd64.deb "$dist"/kmp2mqtt-1.0.0-1.x86_64.rpm "$next"/dist/*.rpm test/packages/adapter.umockdev "$tools/srv"

# Runs a command in a root.
chrooted() { # ROOT COMMAND [ARGUMENT...]
  unshare --mount --pid --fork --kill-child --uts --ipc --net --cgroup --propagation private -- test/packages/enter.sh "$@"
}

echo "== lintian"
tags=$(chrooted "$tools" lintian --allow-root --fail-on error,warning /srv/kmp2mqtt_1.0.0_amd64.deb 2>&1) || fail "lintian says: $tags"

echo "== udev rule"
port=/sys/devices/pci0000:00/usb1/1-1/1-1:1.0/ttyUSB0/tty/ttyUSB0
link=/dev/serial/by-id/usb-FTDI_FT232R_USB_UART_A9XYZ-if00-port0
dpkg-deb --fsys-tarfile "$dist/kmp2mqtt_1.0.0_amd64.deb" | tar --extract --directory "$tools" ./usr/lib/udev
for without in '' 60-serial.rules; do
  [ -z "$without" ] || rm "$tools/usr/lib/udev/rules.d/$without"
  seen=$(chrooted "$tools" umockdev-run --device /srv/adapter.umockdev -- udevadm test --action=add $port 2>&1)
  has "$seen" "DEVLINKS=$link"
  ! grep -E '61-kmp2mqtt.rules:[0-9]+ (Invalid|Unknown|Failed|Ignoring|.*ignoring)' <<<"$seen" || fail "udev does not understand the rule"
  grep -q -E "61-kmp2mqtt.rules:[0-9]+ LINK '${link#/dev/}'" <<<"$seen" || fail "the rule makes no link"
done

boot() {
  test/packages/boot.sh "$root" "$work/init" >"$work/boot.log" 2>&1 &
  machine=$!
  until_true "systemd starts" test -s "$work/init"
  until_true "Debian is up, with no unit failed" inside systemctl is-system-running --quiet
}

inside() {
  nsenter --target "$(<"$work/init")" --mount --pid --uts --ipc --net --cgroup -- env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"
}

files() { (cd "$root" && find . -xdev -path ./var/log -prune -o -path ./var/lib/dpkg -prune -o -path ./srv -prune -o -path ./tmp -prune -o -path ./var/tmp -prune -o -print | sort); }
property() { inside systemctl show --property "$1" --value kmp2mqtt; }
is() { [ "$(property "$1")" = "$2" ]; }
journal() { inside journalctl --no-pager --output cat --unit kmp2mqtt; }
settings() { printf '%s\n' "$@" >>"$root/etc/kmp2mqtt/kmp2mqtt.env"; }

echo "== deb: install"
boot
files >"$work/before"
cp "$dist/kmp2mqtt_1.0.0_amd64.deb" "$next/dist/kmp2mqtt_1.1.0_amd64.deb" "$root/srv"
said=$(inside dpkg --install /srv/kmp2mqtt_1.0.0_amd64.deb 2>&1)
has "$said" 'set METERS in /etc/kmp2mqtt/kmp2mqtt.env'
has "$(inside kmp2mqtt version)" 'kmp2mqtt 1.0.0, commit '
[ "$(inside systemctl is-enabled kmp2mqtt) $(property ActiveState)" = 'enabled inactive' ] || fail "it should be enabled, and not started without METERS"
[ "$(inside stat --format '%a %U:%G' /etc/kmp2mqtt/kmp2mqtt.env)" = '640 root:kmp2mqtt' ] || fail "the settings can be read by others"
has " $(inside id --groups --name kmp2mqtt) " ' dialout '
diff <(sed '1d; s/^METERS=/#METERS=/' .env.example) <(sed 1,2d "$root/etc/kmp2mqtt/kmp2mqtt.env") || fail "the settings are not those of .env.example"

echo "== deb: the unit"
said=$(inside systemd-analyze verify --man=no /usr/lib/systemd/system/kmp2mqtt.service 2>&1) || fail "systemd-analyze verify: $said"
[ -z "$said" ] || fail "systemd-analyze verify: $said"
inside systemd-analyze security --offline=true --threshold=20 --no-pager /usr/lib/systemd/system/kmp2mqtt.service | tail -n 1

echo "== deb: without METERS"
! inside systemctl start kmp2mqtt 2>/dev/null || fail "it started without METERS"
[ "$(property ExecMainStatus) $(property NRestarts)" = '2 0' ] || fail "exit status $(property ExecMainStatus), $(property NRestarts) restarts; 2 and 0 are right"
has "$(journal)" METERS

echo "== deb: run"
# Its pty stays open at its other end, and so stays locked by a bridge that was killed; a serial port does not. Hence a
# new one after each such death.
meter() {
  inside systemctl stop --quiet meter 2>/dev/null || true
  inside systemd-run --quiet --collect --unit meter /usr/bin/kmp2mqtt simulate -pty /run/meter
  until_true "the simulated meter is there" inside test -c /run/meter
  inside sh -c 'chgrp dialout /run/meter && chmod 660 /run/meter'
}
meter
settings 'METERS=house=/run/meter?interval=3s' '# a comment of mine'
run=(systemd-run --quiet --wait --pipe --collect --uid kmp2mqtt --property EnvironmentFile=/etc/kmp2mqtt/kmp2mqtt.env)
has "$(inside "${run[@]}" kmp2mqtt check)" 'house=/run/meter'
inside runuser -u kmp2mqtt -- kmp2mqtt read /run/meter energy power
inside systemctl start kmp2mqtt
is ActiveState active || fail "it does not run"
subscribe=(mosquitto_sub -h 127.0.0.1 -W 30 -C 1)
has "$(inside "${subscribe[@]}" -t kmp2mqtt/house)" '"energy_'
until_true "it keeps what it found" inside test -s /var/lib/kmp2mqtt/kmp2mqtt.json
[ "$(inside stat --format '%a %U' /var/lib/kmp2mqtt)" = '700 kmp2mqtt' ] || fail "its data can be read by others"

echo "== deb: shut in"
pid=$(property MainPID)
status=$(inside cat "/proc/$pid/status")
for line in 'NoNewPrivs:	1' 'Seccomp:	2' 'CapBnd:	0000000000000000' 'CapEff:	0000000000000000'; do has "$status" "$line"; done
[ "$(awk '/^Uid:/ { print $2 }' <<<"$status")" = "$(inside id --user kmp2mqtt)" ] || fail "it runs as another user"
# In its mounts even root writes nowhere but where it keeps its data; and of devices there are only those allowed.
enter=(inside nsenter --target "$pid" --mount --)
"${enter[@]}" sh -c 'touch /var/lib/kmp2mqtt/x && rm /var/lib/kmp2mqtt/x'
for file in /etc/x /usr/x /var/x /root/x /home/x; do
  ! "${enter[@]}" touch $file 2>/dev/null || fail "it may write $file"
done
inside mknod /run/kmsg c 1 11
# shellcheck disable=SC2016 # another shell expands it
open='echo $$ >"/sys/fs/cgroup$1/cgroup.procs" && : <"$2"'
inside sh -c "$open" sh / /run/kmsg || fail "/dev/kmsg cannot be opened at all"
group=$(property ControlGroup)
inside sh -c "$open" sh "$group" /run/meter || fail "its device filter keeps it from its meter"
! inside sh -c "$open" sh "$group" /run/kmsg 2>/dev/null || fail "it may open /dev/kmsg"

echo "== deb: restarts"
restarts() { [ "$(property NRestarts)" -ge "$1" ] && is ActiveState active; }
inside systemctl kill --kill-whom main --signal KILL kmp2mqtt
until_true "a bridge that crashed is started again" restarts 1
meter
mkdir -p "$root/etc/systemd/system/kmp2mqtt.service.d"
printf '[Service]\nWatchdogSec=6s\nRestartSec=100ms\n' >"$root/etc/systemd/system/kmp2mqtt.service.d/test.conf"
inside systemctl daemon-reload
inside systemctl restart kmp2mqtt
has "$(inside "${subscribe[@]}" -t kmp2mqtt/house)" '"energy_'
pid=$(property MainPID)
for _ in $(seq 3); do inside "${subscribe[@]}" -R -t kmp2mqtt/house >/dev/null; done # longer than WatchdogSec
[ "$(property MainPID)" = "$pid" ] || fail "the watchdog ended a bridge that is well"
inside systemctl kill --kill-whom main --signal STOP kmp2mqtt
until_true "a bridge that hangs is started again" restarts 1
has "$(journal)" 'Watchdog timeout'
meter
rm -r "$root/etc/systemd/system/kmp2mqtt.service.d"

echo "== deb: secrets"
printf %s secret-of-the-broker >"$root/etc/kmp2mqtt/mqtt_password"
chmod 600 "$root/etc/kmp2mqtt/mqtt_password"
mkdir "$root/etc/systemd/system/kmp2mqtt.service.d"
cat >"$root/etc/systemd/system/kmp2mqtt.service.d/secrets.conf" <<'EOF'
[Service]
LoadCredential=mqtt_password:/etc/kmp2mqtt/mqtt_password
Environment=MQTT_PASSWORD_FILE=%d/mqtt_password
EOF
settings MQTT_USERNAME=owner
inside systemctl daemon-reload
inside systemctl restart kmp2mqtt
! inside "${subscribe[@]}" -t kmp2mqtt/house >/dev/null 2>&1 || fail "the broker asks for no password"
has "$(inside "${subscribe[@]}" -u owner -P secret-of-the-broker -t kmp2mqtt/house)" '"energy_'
rm -r "$root/etc/systemd/system/kmp2mqtt.service.d" "$root/etc/kmp2mqtt/mqtt_password"
sed -i /^MQTT_USERNAME=/d "$root/etc/kmp2mqtt/kmp2mqtt.env"
inside systemctl daemon-reload
inside systemctl restart kmp2mqtt

echo "== deb: upgrade"
pid=$(property MainPID)
kept=$(inside grep -o '"meter/[0-9]*"' /var/lib/kmp2mqtt/kmp2mqtt.json | sort)
inside dpkg --install /srv/kmp2mqtt_1.1.0_amd64.deb >"$work/dpkg.log" 2>&1 || fail "the upgrade failed: $(<"$work/dpkg.log")"
is ActiveState active || fail "a bridge that runs does not run on after an upgrade"
[ "$(property MainPID)" != "$pid" ] || fail "a bridge that runs is not restarted by an upgrade"
has "$(inside kmp2mqtt version)" 'kmp2mqtt 1.1.0, commit '
has "$(inside "${subscribe[@]}" -t kmp2mqtt/bridge/info)" '"version":"1.1.0"'
has "$(<"$root/etc/kmp2mqtt/kmp2mqtt.env")" '# a comment of mine'
[ "$(inside grep -o '"meter/[0-9]*"' /var/lib/kmp2mqtt/kmp2mqtt.json | sort)" = "$kept" ] || fail "an upgrade loses what was kept"
inside systemctl disable --now --quiet kmp2mqtt
inside dpkg --install /srv/kmp2mqtt_1.0.0_amd64.deb >/dev/null 2>&1
[ "$(inside systemctl is-enabled kmp2mqtt || true) $(property ActiveState)" = 'disabled inactive' ] || fail "an upgrade starts what was disabled"

echo "== deb: remove and purge"
inside systemctl enable --now --quiet kmp2mqtt
inside systemctl stop meter
inside dpkg --remove kmp2mqtt >/dev/null
! inside sh -c 'ls -l /proc/[0-9]*/exe 2>/dev/null' | grep kmp2mqtt || fail "it runs on without its program"
inside test -s /etc/kmp2mqtt/kmp2mqtt.env || fail "remove took the settings along"
inside test -s /var/lib/kmp2mqtt/kmp2mqtt.json || fail "remove took the data along"
inside dpkg --purge kmp2mqtt >/dev/null 2>&1
diff "$work/before" <(files) || fail "purge leaves something"
inside systemctl --quiet is-failed kmp2mqtt && fail "purge leaves a failed unit"
kill "$machine"
wait "$machine" || true
machine=

echo "== rpm"
cp -ax "$CACHE/bookworm" "$tools/target"
target=$tools/target
rpm() { chrooted "$tools" rpm --root /target "$@"; }
rpm_files() { (cd "$target" && find . -xdev -path ./var/lib/rpm -prune -o -path ./root -prune -o -print | sort); }
rpm --initdb
rpm_files >"$work/before"
requires=$(rpm --query --requires --package /srv/kmp2mqtt-1.0.0-1.x86_64.rpm)
has "$requires" systemd
said=$(rpm --install --nodeps /srv/kmp2mqtt-1.0.0-1.x86_64.rpm 2>&1)
has "$said" 'set METERS in /etc/kmp2mqtt/kmp2mqtt.env'
! grep -E 'warning|error' <<<"$said" || fail "rpm complains"
rpm --verify --nodeps kmp2mqtt
[ "$(chroot "$target" stat --format '%a %U:%G' /etc/kmp2mqtt/kmp2mqtt.env)" = '640 root:kmp2mqtt' ] || fail "the settings can be read by others"
has " $(chroot "$target" id --groups --name kmp2mqtt) " ' dialout '
has "$(chroot "$target" kmp2mqtt version)" 'kmp2mqtt 1.0.0, commit '
echo '# a comment of mine' >>"$target/etc/kmp2mqtt/kmp2mqtt.env"
rpm --upgrade --nodeps /srv/kmp2mqtt-1.1.0-1.x86_64.rpm 2>/dev/null
has "$(chroot "$target" kmp2mqtt version)" 'kmp2mqtt 1.1.0, commit '
has "$(<"$target/etc/kmp2mqtt/kmp2mqtt.env")" '# a comment of mine'
rpm --erase kmp2mqtt 2>/dev/null
has "$(<"$target/etc/kmp2mqtt/kmp2mqtt.env.rpmsave")" '# a comment of mine'
rm -r "$target/etc/kmp2mqtt"
diff "$work/before" <(rpm_files) || fail "rpm --erase leaves something"

echo "== apk and OpenRC"
apk=$dist/kmp2mqtt_1.0.0_x86_64.apk
listed=$(tar -tzf "$apk" 2>/dev/null)
for file in .PKGINFO .pre-install .post-install .pre-deinstall .post-upgrade usr/bin/kmp2mqtt etc/init.d/kmp2mqtt etc/kmp2mqtt/kmp2mqtt.env; do
  grep -q -x -F "$file" <<<"$listed" || fail "the apk has no $file"
done
info=$(tar -xzf "$apk" --to-stdout .PKGINFO 2>/dev/null)
for line in 'pkgname = kmp2mqtt' 'pkgver = 1.0.0' 'arch = x86_64'; do has "$info" "$line"; done
tar -xzf "$apk" --directory "$tools" etc usr 2>/dev/null
chroot "$tools" systemd-sysusers - <"$first/deploy/linux/kmp2mqtt.sysusers" 2>/dev/null # in place of Alpine's adduser
cp test/packages/openrc.sh "$tools/srv"
chrooted "$tools" bash /srv/openrc.sh

echo "1 passed, 0 failed"
