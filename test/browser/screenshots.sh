#!/usr/bin/env bash
# Writes the pictures of the page that the documents show: docs/page.png, docs/page-phone.png and docs/align.png.
# A simulated meter whose day passes in five minutes is read for ten, so that its curves have two days and nights.
set -euo pipefail
cd "$(dirname "$0")/../.."
minutes=${1:-10}

dir=$(mktemp -d)
bridge=
trap '[ -z "$bridge" ] || kill "$bridge"; wait; rm -rf "$dir"' EXIT
go build -o "$dir/kmp2mqtt" .

HTTP_LISTEN=127.0.0.1:8097 MQTT_LISTEN=127.0.0.1:0 DATA_DIR="$dir" READ_INTERVAL=5s \
  METERS='house=sim://403?history=hour&speed=288&echo=true&label=House&budget=0' \
  "$dir/kmp2mqtt" 2>"$dir/log" &
bridge=$!
sleep 2
kill -0 $bridge || { cat "$dir/log" >&2; exit 1; }
echo "reading for $minutes minutes"
sleep $((minutes * 60))
node test/browser/screenshots.mjs http://127.0.0.1:8097/ docs
