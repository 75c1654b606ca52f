#!/usr/bin/env bash
# Runs docker-compose.yml for real, under a project name and ports of its own: the demo, Node-RED with the shipped flow,
# and the bridge on a serial port, which is the simulated meter's pty. Needs a Docker engine with compose, Go, and root
# for the pty's permissions. Images that cannot be pulled are replaced by stand-ins made from debian:bookworm-slim.
set -euo pipefail
cd "$(dirname "$0")/.."

export COMPOSE_PROJECT_NAME=kmp2mqtt-test COMPOSE_ENV_FILES=/dev/null COMPOSE_BAKE=false
export BUILD_NETWORK=${BUILD_NETWORK:-host} BROKER_LISTEN=127.0.0.1:0 NODERED_LISTEN=127.0.0.1:0
unset METERS MQTT_URL MQTT_TOPIC MQTT_USERNAME MQTT_PASSWORD
profiles=(--profile demo --profile nodered)
work=$(mktemp -d)
simulator=

finish() {
  local status=$?
  [ $status = 0 ] || docker compose "${profiles[@]}" logs --tail 30 || true
  [ -z "$simulator" ] || kill "$simulator" 2>/dev/null || true
  docker compose "${profiles[@]}" down --volumes --timeout 5 >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap finish EXIT

fail() {
  echo "test/compose.sh: $*" >&2
  exit 1
}

# Waits for a message that has the text in it; the rest of the arguments are mosquitto_sub's (-R: no retained ones).
expect() { # TEXT -t FILTER [-R]
  local text=$1 seen line
  shift
  for _ in $(seq 10); do
    seen=$(docker compose exec -T mosquitto mosquitto_sub -v -W 6 "$@" 2>&1 || true)
    if line=$(grep -m1 -F -- "$text" <<<"$seen"); then
      echo "${line:0:200}"
      return
    fi
  done
  fail "nothing with $text on $* within a minute, last seen: ${seen:0:300}"
}

echo "== image"
docker compose --profile demo build --quiet
size=$(docker image inspect --format '{{.Size}}' kmp2mqtt)
[ "$size" -lt 15000000 ] || fail "the image has $size bytes, 15000000 are the limit"
echo "$size bytes"
docker run --rm kmp2mqtt version

echo "== other platforms"
for platform in linux/arm64 linux/arm/v7 linux/arm/v6; do
  docker buildx build --quiet --network "$BUILD_NETWORK" --platform $platform --target build --output type=cacheonly .
  echo "$platform"
done

echo "== demo"
docker compose --profile demo up --detach --wait
expect '"energy_' -R -t 'kmp2mqtt/+'
expect '"identifiers":["kmp_' -t 'homeassistant/device/+/config'
docker compose restart --timeout 5 mosquitto
expect '"energy_' -R -t 'kmp2mqtt/+'

echo "== Node-RED"
image=$(docker compose --profile nodered config --images | grep node-red)
if ! docker image inspect "$image" >/dev/null 2>&1 && ! docker pull --quiet "$image"; then
  test/setup.sh
  docker build --quiet --network "$BUILD_NETWORK" --tag "$image" --file - test/node-red <<'EOF'
FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends nodejs && rm -rf /var/lib/apt/lists/*
COPY node_modules /usr/src/node-red/node_modules
RUN useradd --uid 1000 node-red && mkdir /data && chown node-red /data
WORKDIR /usr/src/node-red
USER node-red
VOLUME /data
EXPOSE 1880
EOF
fi
docker compose --profile nodered up --detach --wait
address=$(docker compose port nodered 1880)
curl --silent --show-error --fail --retry 30 --retry-delay 1 --retry-all-errors "http://$address/flows" >"$work/flows.json"
grep -q kmp2mqtt "$work/flows.json" || fail "Node-RED did not take the shipped flow: $(head -c 300 "$work/flows.json")"
for _ in $(seq 30); do
  log=$(docker compose --profile nodered logs nodered)
  ! grep -m1 -F 'Connected to broker' <<<"$log" || break
  sleep 1
done
grep -q -F 'Connected to broker' <<<"$log" || fail "Node-RED did not reach the broker"

echo "== serial port"
CGO_ENABLED=0 go build -o "$work/kmp2mqtt" .
"$work/kmp2mqtt" simulate -pty "$work/meter" >"$work/simulate.log" 2>&1 &
simulator=$!
for _ in $(seq 50); do
  [ ! -e "$work/meter" ] || break
  sleep 0.1
done
port=$(readlink -f "$work/meter")
[ -c "$port" ] || fail "the simulated meter made no pty: $(cat "$work/simulate.log")"
chmod 660 "$port"
SERIAL_GID=$(stat -c %g "$port")
METERS="line=$port?interval=5s"
export SERIAL_GID METERS
docker compose up --detach --wait
expect '"energy_' -R -t kmp2mqtt/line

echo "== what survives"
docker compose restart --timeout 5 kmp2mqtt
docker compose cp kmp2mqtt:/data/kmp2mqtt.json "$work/kept.json"
grep -o '"meter/80123456"' "$work/kept.json" || fail "the volume does not hold the meter: $(head -c 300 "$work/kept.json")"
docker compose up --detach --force-recreate --wait kmp2mqtt
expect '"energy_' -R -t kmp2mqtt/line
log=$(docker compose logs kmp2mqtt)
! grep -F DATA_DIR <<<"$log" || fail "the bridge has trouble with its volume"

echo "1 passed, 0 failed"
