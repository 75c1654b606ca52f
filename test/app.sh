#!/usr/bin/env bash
# Runs the app of Home Assistant as the Supervisor does: the image built from the app's folder with the Supervisor's
# arguments, the options in /data, its network with the ingress at 172.30.32.2, a broker that wants a password, and a
# simulated meter behind TCP. Only the Supervisor is a stand-in (test/app). Needs a Docker engine, Go and apparmor_parser.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

name=kmp2mqtt-app-test
token=5f1e7a0c33d94e0b password='pa ss=w"ord&x'
work=$(mktemp -d)

finish() {
  local status=$?
  [ $status = 0 ] || docker logs --tail 30 $name-app 2>&1 || true
  docker rm --force --volumes $name-{app,meter,broker,supervisor,other} >/dev/null 2>&1 || true
  docker network rm $name >/dev/null 2>&1 || true
  docker image rm --force local/$name >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap finish EXIT

fail() {
  echo "test/app.sh: $*" >&2
  exit 1
}

run() { # NAME [ADDRESS] -- DOCKER'S ARGUMENTS: a container in the Supervisor's network
  local container=$1 address=()
  shift
  [ "$1" = -- ] || { address=(--ip "$1") && shift; }
  shift
  docker run --detach --name "$name-$container" --network $name "${address[@]}" "$@" >/dev/null
}

# A page as the Supervisor gets it, or as another app does: the status, then the body.
page() { docker exec $name-supervisor /fake get "http://$name-app:8099$1"; }
stranger() { docker exec $name-other /fake get "http://$name-app:8099$1"; }

# Waits until a command's output has the text in it, for a minute.
expect() { # TEXT COMMAND...
  local text=$1 seen='' end=$((SECONDS + 60))
  shift
  while [ $SECONDS -lt $end ]; do
    seen=$("$@" 2>&1 || true)
    if grep -qF -- "$text" <<<"$seen"; then
      echo "$*: $text"
      return
    fi
    sleep 0.5
  done
  fail "$*: no $text within a minute, last seen: ${seen:0:400}"
}

messages() { docker exec $name-broker mosquitto_sub -h 127.0.0.1 -u addons -P "$password" -v -W 2 "$@"; }

options() { # JSON: as the Supervisor writes them, for root alone
  printf '%s\n' "$1" >"$work/data/options.json"
  chmod 600 "$work/data/options.json"
}

restart() { docker restart --time 10 $name-app >/dev/null; }

echo "== profile"
command -v apparmor_parser >/dev/null || fail "apparmor_parser is missing: run test/setup.sh"
apparmor_parser --skip-kernel-load --skip-cache deploy/homeassistant/kmp2mqtt/apparmor.txt
echo "apparmor.txt is sound"

echo "== repository"
deploy/homeassistant/make.sh --out "$work/published" --image registry.example.com/owner/kmp2mqtt --url https://example.com/repository --maintainer 'Name <name@example.com>'
grep -qx 'image: "registry.example.com/owner/kmp2mqtt"' "$work/published/kmp2mqtt/config.yaml" || fail "no image in config.yaml"
grep -qx 'url: "https://example.com/repository"' "$work/published/repository.yaml" || fail "no url in repository.yaml"
go version -m "$work/published/kmp2mqtt/bin/linux-arm64/kmp2mqtt" | grep -q 'GOARCH=arm64' || fail "the program for aarch64 is for something else"
app=$work/published/kmp2mqtt
version=$(sed -n 's/^version: "\([^"]*\)".*/\1/p' "$app/config.yaml")

echo "== image"
(cd "$app" && docker buildx build . --quiet --load --tag local/$name:"$version" --file Dockerfile --platform linux/amd64 \
  --label io.hass.version="$version" --label io.hass.arch=amd64 --label io.hass.type=app --label io.hass.name=kmp2mqtt \
  --build-arg BUILD_VERSION="$version" --build-arg BUILD_ARCH=amd64)
docker tag local/$name:"$version" local/$name
docker buildx build --quiet --load --tag local/$name:plain --build-arg BUILD_VERSION="$version" "$app" >/dev/null
labels=$(docker image inspect --format '{{json .Config.Labels}}' local/$name:plain)
for label in "\"io.hass.version\":\"$version\"" '"io.hass.type":"app"' '"io.hass.arch":"amd64"'; do
  grep -qF "$label" <<<"$labels" || fail "the image has no label $label: $labels"
done
docker run --rm local/$name version | grep -F "kmp2mqtt $version," || fail "the program is not version $version"

echo "== surroundings"
docker network create --subnet 172.30.32.0/23 --ip-range 172.30.33.0/24 --gateway 172.30.32.1 $name >/dev/null
CGO_ENABLED=0 go build -o "$work/fake" ./test/app
mkdir -p "$work/data" "$work/supervisor" "$work/broker"
run supervisor 172.30.32.2 -- --volume "$work/fake:/fake" --volume "$work/supervisor:/state" --entrypoint /fake local/$name serve $token /state/mqtt.json
run other -- --volume "$work/fake:/fake" --entrypoint /fake local/$name serve x /none
run meter -- local/$name simulate -listen tcp://0.0.0.0:2001
printf 'listener 1883\nallow_anonymous false\npassword_file /broker/passwords\n' >"$work/broker/mosquitto.conf"
docker run --rm --volume "$work/broker:/broker" --entrypoint mosquitto_passwd eclipse-mosquitto:2 -b -c /broker/passwords addons "$password"
chmod -R a+rX "$work/broker"
run broker -- --network-alias core-mosquitto --volume "$work/broker:/broker:ro" eclipse-mosquitto:2 mosquitto -c /broker/mosquitto.conf

echo "== a fresh installation"
options '{"meters": [], "log_level": "info", "settings": []}'
run app -- --hostname local-kmp2mqtt --add-host supervisor:172.30.32.2 --volume /dev:/dev:ro --volume "$work/data:/data" \
  --env SUPERVISOR_TOKEN=$token --env HASSIO_TOKEN=$token --env TZ=Europe/Copenhagen local/$name
expect 'Name your first meter' page /
expect 403 stranger /
expect ok page /healthz

echo "== no broker yet"
options '{"meters": [{"name": "house", "url": "tcp://'$name'-meter:2001", "label": "Heat & meter", "options": "budget=0"}], "interval": 1, "log_level": "debug", "settings": []}'
restart
expect 'Waiting for an MQTT broker' page /
expect ok page /healthz

echo "== the broker comes, and the app goes on by itself"
printf '{"addon": "core_mosquitto", "host": "core-mosquitto", "port": 1883, "ssl": false, "username": "addons", "password": "%s", "protocol": "3.1.1"}' \
  "${password//\"/\\\"}" >"$work/supervisor/mqtt.json"
expect '"energy_gj":' messages -t kmp2mqtt/house
expect '"name":"Heat & meter"' messages -t 'homeassistant/device/+/config'
expect ' online' messages -t kmp2mqtt/bridge/state

echo "== the page"
expect 200 page /
expect 'Heat &amp; meter' page /
expect '"energy_gj"' page /api/v1/meters/house
# The watchdog asks by the address, not the name.
host=$(docker inspect --format "{{(index .NetworkSettings.Networks \"$name\").IPAddress}}" $name-app)
expect 200 docker exec $name-supervisor /fake get "http://$host:8099/healthz"
expect 200 docker exec $name-supervisor /fake get "http://$host:8099/"
for path in / /api/v1/meters /metrics; do
  answer=$(stranger $path)
  [[ $answer = 40[13]* ]] || fail "another app gets $path: ${answer:0:100}"
done
echo "another app gets nothing"

echo "== wrong options"
options '{"meters": [{"name": "house", "url": "tcp://meter"}], "log_level": "info", "settings": []}'
restart
expect 'option meters: meter &#34;house&#34;' page /

echo "== the end"
options '{"meters": [{"name": "house", "url": "tcp://'$name'-meter:2001"}], "log_level": "info", "settings": [{"name": "MQTT_TOPIC", "value": "meters"}]}'
restart
expect '"energy_gj":' messages -t meters/house
docker stop --time 10 $name-app >/dev/null
status=$(docker inspect --format '{{.State.ExitCode}}' $name-app)
[ "$status" = 0 ] || fail "the app ended with status $status"
expect ' offline' messages -t meters/bridge/state
log=$(docker logs $name-app 2>&1)
for secret in "$password" "$token"; do
  ! grep -F -- "$secret" <<<"$log" || fail "the log shows a secret"
done

echo "1 passed, 0 failed"
