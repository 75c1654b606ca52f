#!/usr/bin/env bash
# Runs docker-compose.yml for real, in a directory of its own as an owner has it, under a project name and ports of its
# own: the image for every platform, the first start, passwords, health, the page, Node-RED with the shipped flow, the
# bridge on a serial port, which is the simulated meter's pty, Prometheus and Grafana with the shipped dashboard.
# Needs a Docker engine with compose on this machine, which is an x86-64, Go, and root for the pty's permissions and to look into /proc.
# Images that cannot be pulled are replaced by stand-ins made from debian:bookworm-slim: Node-RED from npm, Debian's
# Prometheus, and for Grafana test/compose/grafana.py, which loads what is provisioned but draws nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD

export COMPOSE_PROJECT_NAME=kmp2mqtt-test COMPOSE_BAKE=false BUILD_NETWORK=${BUILD_NETWORK:-host}
for name in $(sed -n 's/^#*\([A-Z_]*\)=.*/\1/p' .env.example) TZ SERIAL_GID GRAFANA_PASSWORD; do
  unset "$name" "${name}_FILE"
done
unset COMPOSE_FILE COMPOSE_ENV_FILES COMPOSE_PROFILES
platforms=(linux/amd64 linux/arm64 linux/arm/v7 linux/arm/v6 linux/386 linux/riscv64)
all=(--profile demo --profile nodered --profile metrics)
work=$(mktemp -d)
simulator=
alone=

finish() {
  local status=$?
  [ $status = 0 ] || docker compose "${all[@]}" logs --tail 30 || true
  [ -z "$simulator" ] || kill "$simulator" 2>/dev/null || true
  [ -z "$alone" ] || docker rm --force "$alone" >/dev/null 2>&1 || true
  docker compose "${all[@]}" down --volumes --timeout 5 >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap finish EXIT

fail() {
  echo "test/compose.sh: $*" >&2
  exit 1
}

# Repeats a command until it succeeds, and shows what it said.
await() { # COMMAND...
  local said
  for _ in $(seq 90); do
    if said=$("$@" 2>&1); then
      echo "${said:0:200}"
      return
    fi
    sleep 1
  done
  fail "not within 90 s: $*: ${said:0:300}"
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

# Logs in at the broker with nothing but the arguments, and wants an exit status: 0, or 5 for refused.
broker() { # STATUS [-u NAME -P PASSWORD]
  local want=$1 said status=0
  shift
  said=$(docker compose exec -T -e XDG_CONFIG_HOME=/none mosquitto \
    mosquitto_sub -W 5 -C 1 -t "\$SYS/broker/uptime" "$@" 2>&1) || status=$?
  [ "$status" = "$want" ] || fail "mosquitto_sub $* ended with $status instead of $want: $said"
  echo "$status for ${*:-nobody}"
}

# Asks for a page and wants a status.
page() { # STATUS URL [curl's arguments]
  local got
  got=$(curl --silent --show-error --output "$work/answer" --write-out '%{http_code}' "${@:2}")
  [ "$got" = "$1" ] || fail "${*:2}: $got instead of $1: $(head -c 300 "$work/answer")"
}

# The password of a row of what `passwords show` says: broker, page or Grafana.
password() { # ROW
  docker compose run --rm -T passwords show 2>/dev/null | sed -n "s/^$1 .* password \([^, ]*\).*/\1/p"
}

container() { # SERVICE
  docker compose "${all[@]}" ps --quiet "$1"
}

address() { # SERVICE PORT
  docker compose "${all[@]}" port "$1" "$2"
}

health_is() { # SERVICE STATUS
  [ "$(docker inspect --format '{{.State.Health.Status}}' "$(container "$1")")" = "$2" ]
}

# What the kernel says of a service's program: not root, no capability, none to be had, nothing to write on but volumes.
confined() { # SERVICE...
  local service id pid
  for service in "$@"; do
    id=$(container "$service")
    pid=$(docker inspect --format '{{.State.Pid}}' "$id")
    awk '/^Uid:/ && ($2 == 0 || $3 == 0) || /^Cap(Inh|Prm|Eff|Bnd|Amb):/ && $2 !~ /^0+$/ || /^NoNewPrivs:/ && $2 != 1 { print; bad = 1 }
      END { exit bad }' "/proc/$pid/status" || fail "$service may do too much"
    awk '$5 == "/" && $6 ~ /^ro(,|$)/ { ro = 1 } END { exit !ro }' "/proc/$pid/mountinfo" || fail "$service can write on its root"
    [ "$(docker inspect --format '{{and .HostConfig.Memory .HostConfig.PidsLimit (index .HostConfig.LogConfig.Config "max-size")}}' "$id")" = 10m ] ||
      fail "$service has no limits"
    echo "$service: user $(awk '/^Uid:/ { print $3 }' "/proc/$pid/status"), no capabilities, read-only"
  done
}

# Has an image: it is there, or can be pulled, or is built from a Dockerfile on standard input and a directory.
have() { # PART-OF-ITS-NAME DIRECTORY
  local image
  image=$(docker compose "${all[@]}" config --images | grep -F "$1")
  if docker image inspect "$image" >/dev/null 2>&1 || docker pull --quiet "$image"; then
    return
  fi
  echo "$image: a stand-in"
  docker build --quiet --network "$BUILD_NETWORK" --tag "$image" --file - "$2"
}

missing=()
command -v jq >/dev/null || missing+=(jq)
command -v qemu-arm-static >/dev/null || missing+=(qemu-user-static)
if [ ${#missing[@]} -gt 0 ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

echo "== image"
export VERSION=v0.0.0-test COMMIT=0123456
COMPOSE_ENV_FILES=/dev/null docker compose --profile demo build --quiet
said=$(docker run --rm --network none kmp2mqtt version)
grep -F "$VERSION, commit $COMMIT" <<<"$said" || fail "it says it is $said"
said=$(docker image inspect --format '{{.Config.User}} {{.Config.StopSignal}} {{json .Config.ExposedPorts}} {{json .Config.Healthcheck.Test}} {{index .Config.Labels "org.opencontainers.image.version"}}' kmp2mqtt)
[ "$said" = '65532:65532 SIGTERM {"8099/tcp":{}} ["CMD","/usr/local/bin/kmp2mqtt","health"] '"$VERSION" ] || fail "the image: $said"
size=$(docker image inspect --format '{{.Size}}' kmp2mqtt)
[ "$size" -lt 15000000 ] || fail "the image has $size bytes, 15000000 are the limit"
echo "$size bytes"

echo "== platforms"
for platform in "${platforms[@]}"; do
  out=$work/$(tr / - <<<"$platform")
  docker buildx build --quiet --network "$BUILD_NETWORK" --platform "$platform" --output "type=local,dest=$out" .
  case $platform in # about the oldest processor of each
  linux/arm64) run=(qemu-aarch64-static -cpu cortex-a53) ;;
  linux/arm/v7) run=(qemu-arm-static -cpu cortex-a7) ;;
  linux/arm/v6) run=(qemu-arm-static -cpu arm1176) ;;
  linux/riscv64) run=(qemu-riscv64-static) ;;
  *) run=() ;; # as it is
  esac
  said=$("${run[@]}" "$out/usr/local/bin/kmp2mqtt" version)
  grep -q -F "${platform%/v?}" <<<"$said" || fail "$platform: $said"
  echo "$platform: $said, $(stat -c %s "$out/usr/local/bin/kmp2mqtt") bytes"
  rm -rf "$out"
done
unset VERSION COMMIT

# From here on as an owner: the files that are needed, and .env.
mkdir -p "$work/home/docs"
cp -r docker-compose.yml deploy "$work/home"
cp docs/node-red-flow.json docs/grafana-dashboard.json "$work/home/docs"
chmod -R a+rX "$work/home"
cd "$work/home"
for name in PAGE DEMO BROKER NODERED GRAFANA PROMETHEUS; do
  echo "${name}_LISTEN=127.0.0.1:0" >>.env
done

echo "== alone, without compose"
alone=$(docker run --detach --read-only --cap-drop ALL --network none --tmpfs /tmp kmp2mqtt demo)

echo "== first start"
# A user of a broker that was set up before passwords were made by themselves.
docker compose run --rm -T --entrypoint mosquitto_passwd passwords -c -b /mosquitto/data/passwd former old-secret
docker compose --profile demo up --detach --wait
broker 5
broker 5 -u kmp2mqtt -P kmp2mqtt
broker 5 -u owner -P ''
broker 0 -u owner -P "$(password broker)"
broker 0 -u former -P old-secret
expect '"energy_' -R -t 'kmp2mqtt/+'
expect '"identifiers":["kmp_' -t 'homeassistant/device/+/config'
confined mosquitto kmp2mqtt-demo
docker compose exec -T mosquitto cat /passwords/bridge/mqtt_url 2>/dev/null && fail "the broker reads the bridge's password"
log=$(docker compose --profile demo logs)
secret=$(password broker)
! grep -F -e "$secret" -e old-secret <<<"$log" || fail "a password is in the log"

echo "== users of the broker"
said=$(docker compose run --rm -T passwords add homeassistant)
secret=$(sed -n 's/^user homeassistant *password //p' <<<"$said")
[ ${#secret} = 20 ] || fail "no password of 20 characters: $said"
docker compose kill --signal HUP mosquitto
await broker 0 -u homeassistant -P "$secret"
docker compose run --rm -T passwords remove former
docker compose kill --signal HUP mosquitto
await broker 5 -u former -P old-secret

echo "== health"
alive() { docker compose exec -T kmp2mqtt-demo kmp2mqtt health; }
ready() { docker compose exec -T kmp2mqtt-demo kmp2mqtt health -ready; }
alive
await ready
docker compose stop --timeout 5 mosquitto
not_ready() {
  local said
  ! said=$(ready 2>&1) && grep -F 'the broker is not connected' <<<"$said"
}
await not_ready
alive # all the same
docker compose kill --signal STOP kmp2mqtt-demo
await health_is kmp2mqtt-demo unhealthy
docker compose kill --signal CONT kmp2mqtt-demo
await health_is kmp2mqtt-demo healthy
docker compose start mosquitto
await ready
expect '"energy_' -R -t 'kmp2mqtt/+'
[ "$(docker inspect --format '{{.State.Health.Status}}' "$alone")" = healthy ] || fail "it is not healthy alone: $(docker logs --tail 5 "$alone" 2>&1)"

echo "== page of the demo"
url=http://$(address kmp2mqtt-demo 8099)
page 200 "$url/" --user demo:demo
page 401 "$url/"
page 401 "$url/" --user demo:wrong
page 200 "$url/healthz"

echo "== what survives"
docker compose run --rm -T passwords show >"$work/before"
docker compose --profile demo down --timeout 5
docker compose --profile demo up --detach --wait
docker compose run --rm -T passwords show >"$work/after"
cmp "$work/before" "$work/after" || fail "the passwords are others after a restart"
broker 0 -u homeassistant -P "$secret"
expect '"energy_' -R -t 'kmp2mqtt/+'

echo "== a broker's user of the owner's own"
cat >>.env <<'END'
MQTT_USERNAME=anna
MQTT_PASSWORD='two words, $5 "and" #1'
END
docker compose --profile demo up --detach --wait
# shellcheck disable=SC2016 # as it is
broker 0 -u anna -P 'two words, $5 "and" #1'
await ready
expect '"energy_' -R -t 'kmp2mqtt/+'

echo "== Node-RED"
if ! docker image inspect "$(docker compose --profile nodered config --images | grep -F node-red)" >/dev/null 2>&1; then
  "$repository/test/setup.sh"
fi
have node-red "$repository/test/node-red" <<'END'
FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends nodejs && rm -rf /var/lib/apt/lists/*
COPY node_modules /usr/src/node-red/node_modules
RUN useradd --uid 1000 node-red && mkdir /data && chown node-red /data
WORKDIR /usr/src/node-red
USER node-red
VOLUME /data
EXPOSE 1880
END
docker compose --profile nodered up --detach --wait
url=http://$(address nodered 1880)
curl --silent --show-error --fail --retry 60 --retry-delay 1 --retry-all-errors "$url/flows" >"$work/flows.json"
grep -q kmp2mqtt "$work/flows.json" || fail "Node-RED did not take the shipped flow: $(head -c 300 "$work/flows.json")"
connected() { docker compose --profile nodered logs nodered | grep -F 'Connected to broker'; }
await connected
values() { curl --silent --fail "$url/context/flow/kmp2mqtt-flow/values" | grep -F energy_; }
await values
# Deploying it, as an owner does with a change, keeps the user of the broker, now encrypted.
curl --silent --show-error --fail --header 'Content-Type: application/json' --header 'Node-RED-Deployment-Type: full' \
  --data @"$work/flows.json" "$url/flows"
docker compose --profile nodered restart --timeout 5 nodered
again() { [ "$(docker compose --profile nodered logs nodered | grep -c -F 'Connected to broker')" -ge 3 ]; }
await again
confined nodered

echo "== serial port"
(cd "$repository" && CGO_ENABLED=0 go build -o "$work/kmp2mqtt" .)
"$work/kmp2mqtt" simulate -pty "$work/meter" >"$work/simulate.log" 2>&1 &
simulator=$!
await test -e "$work/meter"
port=$(readlink -f "$work/meter")
[ -c "$port" ] || fail "the simulated meter made no pty: $(cat "$work/simulate.log")"
chmod 660 "$port"
cat >>.env <<END
SERIAL_GID=$(stat -c %g "$port")
METERS=line=$port?interval=5s
HTTP_USERNAME=anna
END
docker compose run --rm -T kmp2mqtt check
docker compose up --detach --wait
expect '"energy_' -R -t kmp2mqtt/line
confined kmp2mqtt
docker compose restart --timeout 5 kmp2mqtt
docker compose cp kmp2mqtt:/data/kmp2mqtt.json "$work/kept.json"
grep -o '"meter/80123456"' "$work/kept.json" || fail "the volume does not hold the meter: $(head -c 300 "$work/kept.json")"
docker compose up --detach --force-recreate --wait kmp2mqtt
expect '"energy_' -R -t kmp2mqtt/line
log=$(docker compose logs kmp2mqtt)
! grep -F DATA_DIR <<<"$log" || fail "the bridge has trouble with its volume"

echo "== page"
url=http://$(address kmp2mqtt 8099)
page 401 "$url/"
page 401 "$url/" --user anna:anna
page 200 "$url/" --user "anna:$(password page)"
page 401 "$url/metrics"
page 200 "$url/metrics" --user "anna:$(password page)"

echo "== metrics"
have prom/prometheus "$repository/test/compose" <<'END'
FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends prometheus wget && rm -rf /var/lib/apt/lists/* && \
    rm -rf /etc/prometheus && mkdir /etc/prometheus /prometheus && chown 65534:65534 /prometheus
# Debian's Prometheus is older than username_file.
RUN printf '%s\n' '#!/bin/sh' 'cd /etc/prometheus' \
      'for file in *.yml; do sed "s,username_file: \(.*\),username: $(cat /passwords/prometheus/http_username)," "$file" >"/prometheus/$file"; done' \
      'shift # the first argument is the file' 'exec prometheus --config.file=/prometheus/prometheus.yml "$@"' >/entrypoint && chmod +x /entrypoint
USER 65534
EXPOSE 9090
ENTRYPOINT ["/entrypoint"]
END
have grafana/grafana "$repository/test/compose" <<'END'
FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-yaml wget && rm -rf /var/lib/apt/lists/* && \
    mkdir -p /var/lib/grafana && chown 472 /var/lib/grafana
COPY grafana.py /
USER 472
EXPOSE 3000
ENTRYPOINT ["python3", "-u", "/grafana.py"]
END
docker compose "${all[@]}" up --detach --wait
confined prometheus grafana
url=http://$(address grafana 3000)
admin=admin:$(password Grafana)
page 401 "$url/api/dashboards/uid/kmp2mqtt"
page 401 "$url/api/dashboards/uid/kmp2mqtt" --user admin:admin
page 200 "$url/api/dashboards/uid/kmp2mqtt" --user "$admin"
jq --exit-status '.dashboard.title and .meta.provisioned' "$work/answer"
prometheus() { # PATH [curl's arguments]
  curl --silent --show-error --fail --user "$admin" --get "$url/api/datasources/proxy/uid/prometheus/api/v1/$1" "${@:2}"
}
up() { # JOB INSTANCE
  prometheus query --data-urlencode "query=up{job=\"$1\", instance=\"$2\"} == 1" | jq --exit-status --compact-output '.data.result[0].metric'
}
await up kmp2mqtt kmp2mqtt:8099
await up kmp2mqtt-demo kmp2mqtt-demo
prometheus query --data-urlencode 'query=kmp_register{register="power"}' >"$work/answer"
jq --raw-output '.data.result[] | "\(.metric.instance) \(.metric.meter) \(.value[1]) \(.metric.unit)"' "$work/answer" | sort | tee "$work/power"
[ "$(cut -d ' ' -f 1,2 "$work/power" | tr '\n' ',')" = 'kmp2mqtt-demo house,kmp2mqtt:8099 line,' ] || fail "not the power of both meters"
rules() { prometheus rules | jq --exit-status '[.data.groups[].rules[].health] | length > 0 and all(. == "ok")'; }
await rules
drawn=0
# shellcheck disable=SC2016 # Grafana's variables
jq --raw-output '[.. | .expr? // empty] | unique[]' docs/grafana-dashboard.json |
  sed 's/\$meter\b/.*/g; s/\$__rate_interval\b/5m/g; s/\$__interval\b/1m/g; s/\$__range\b/1h/g' >"$work/queries"
while IFS= read -r query; do
  prometheus query --data-urlencode "query=$query" >"$work/answer" || fail "the dashboard's query fails: $query"
  ! jq --exit-status '.data.result | length > 0' "$work/answer" >/dev/null || drawn=$((drawn + 1))
done <"$work/queries"
echo "$drawn of $(wc -l <"$work/queries") queries of the dashboard have values by now"
[ "$drawn" -ge 10 ] || fail "the dashboard is empty"

echo "== a page's password of the owner's own"
former=$(password page)
echo "HTTP_PASSWORD='for the page'" >>.env
docker compose "${all[@]}" up --detach --wait
page 401 "http://$(address kmp2mqtt 8099)/" --user "anna:$former"
page 200 "http://$(address kmp2mqtt 8099)/" --user 'anna:for the page'
url=http://$(address grafana 3000)
since=$(date +%s)
scraped() { # since then, with the new password
  prometheus query --data-urlencode "query=up{job=\"kmp2mqtt\"} == 1 and timestamp(up{job=\"kmp2mqtt\"}) > $since" | jq --exit-status '.data.result | length == 1'
}
await scraped
page 200 "$url/api/dashboards/uid/kmp2mqtt" --user "$admin"

echo "== backup"
docker compose run --rm -T passwords show >"$work/before"
docker compose stop --timeout 5
for volume in kmp2mqtt-data passwords; do
  docker run --rm --network none --volume "${COMPOSE_PROJECT_NAME}_$volume:/from:ro" --volume "$work":/to debian:bookworm-slim \
    tar -czf "/to/$volume.tar.gz" -C /from .
done
docker compose "${all[@]}" down --volumes --timeout 5
for volume in kmp2mqtt-data passwords; do
  docker run --rm --network none --volume "${COMPOSE_PROJECT_NAME}_$volume:/to" --volume "$work":/from:ro debian:bookworm-slim \
    tar -xzf "/from/$volume.tar.gz" -C /to
done
docker compose up --detach --wait
docker compose run --rm -T passwords show >"$work/after"
cmp "$work/before" "$work/after" || fail "the passwords are others than in the backup"
broker 0 -u homeassistant -P "$secret"
docker compose cp kmp2mqtt:/data/kmp2mqtt.json "$work/kept.json"
grep -o '"meter/80123456"' "$work/kept.json" || fail "the backup does not hold the meter: $(head -c 300 "$work/kept.json")"
expect '"energy_' -R -t kmp2mqtt/line

echo "1 passed, 0 failed"
