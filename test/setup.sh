#!/usr/bin/env bash
# Installs what the tests need beside Go: a C compiler for the race detector, Mosquitto, ser2net, socat, Prometheus,
# Chromium, AppArmor's parser, debootstrap, Node.js, in test/node-red Node-RED, and in test/browser what drives Chromium.
# What is there already is left alone; run again it does nothing.
set -euo pipefail
cd "$(dirname "$0")"
PATH=$PATH:/usr/sbin:/sbin # Debian keeps daemons there, out of a user's path

# program : the Debian package that brings it
need=(cc:gcc cc:libc6-dev mosquitto:mosquitto mosquitto_sub:mosquitto-clients ser2net:ser2net socat:socat stdbuf:coreutils prometheus:prometheus promtool:prometheus
  chromium:chromium apparmor_parser:apparmor debootstrap:debootstrap node:nodejs npm:npm)
packages=()
for entry in "${need[@]}"; do
  command -v "${entry%%:*}" >/dev/null || packages+=("${entry##*:}")
done

fail() {
  echo "test/setup.sh: $*" >&2
  exit 1
}

install_debian() {
  local root=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || fail "needs root or sudo to install: ${packages[*]}"
    root=(sudo)
  fi
  echo "installing ${packages[*]}"
  # The tests start their own broker and serial server. Debian would start one of each at once, and again at every boot:
  # policy-rc.d forbids the first, the disabling below the second.
  local policy=/usr/sbin/policy-rc.d made=
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee $policy >/dev/null
    "${root[@]}" chmod +x $policy
    made=yes
  fi
  local status=0
  {
    "${root[@]}" apt-get update -qq &&
      "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
  } || status=$?
  [ -z "$made" ] || "${root[@]}" rm -f $policy
  [ $status = 0 ] || fail "apt-get could not install: ${packages[*]}"
  if [ -d /run/systemd/system ]; then
    local service
    for service in mosquitto ser2net prometheus; do
      [[ " ${packages[*]} " != *" $service "* ]] || "${root[@]}" systemctl disable --now --quiet $service || true
    done
  fi
}

if [ ${#packages[@]} -gt 0 ]; then
  command -v apt-get >/dev/null ||
    fail "this is not Debian or Ubuntu: please install, under your system's names: ${packages[*]}"
  install_debian
fi

major=$(node --version | sed 's/^v\([0-9]*\).*/\1/')
[ "$major" -ge 18 ] || fail "Node-RED needs Node.js 18 or newer; $(command -v node) is $(node --version)"

# npm writes its own list last, so that a half-done installation is done again.
for directory in node-red browser; do
  if [ ! $directory/node_modules/.package-lock.json -nt $directory/package-lock.json ]; then
    echo "installing the packages of test/$directory"
    (cd $directory && npm ci --omit=optional --no-audit --no-fund --loglevel=error)
  fi
done
