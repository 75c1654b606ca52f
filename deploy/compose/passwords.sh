#!/bin/sh
# The passwords of docker-compose.yml: made on the first start, kept in the volume `passwords`.
#
#   docker compose run --rm passwords show           who logs in where, with passwords
#   docker compose run --rm passwords add NAME       a new user of the broker, or a new password for one
#   docker compose run --rm passwords remove NAME
#
# `prepare` is what every `docker compose up` runs before all else: it makes what is missing and takes what .env sets
# (MQTT_USERNAME, MQTT_PASSWORD, MQTT_URL, HTTP_USERNAME, HTTP_PASSWORD, GRAFANA_PASSWORD). It runs in the broker's
# image, as root, so that each file can belong to the one program that may read it. For Prometheus it also writes down
# whether there is a bridge at all.
set -eu
umask 077
cd /passwords

fail() {
  echo "passwords: $*" >&2
  exit 1
}

# Prints a new password: 20 letters and digits that no font mixes up.
random() {
  head -c 1024 /dev/urandom | LC_ALL=C tr -dc 'A-HJ-NP-Za-km-z2-9' | head -c 20
}

# The user that a program's image runs as, and each program its own directory of files.
programs="mosquitto:1883 bridge:65532 nodered:1000 prometheus:65534 grafana:472"

# Writes a file as a whole, for the owner of its directory; not if it says so already.
put() { # FILE TEXT
  if [ -e "$1" ] && [ "$(cat "$1")" = "$2" ]; then
    return
  fi
  printf '%s\n' "$2" >"$1.new"
  chown "$(stat -c %u:%g "${1%/*}")" "$1.new"
  mv "$1.new" "$1"
}

# Puts a value into a file: the wanted one; if there is none, what is there already, else a new password.
keep() { # FILE WANTED
  if [ -n "$2" ]; then
    put "$1" "$2"
  elif [ ! -s "$1" ]; then
    put "$1" "$(random)"
  fi
}

# Lets a user into the broker.
login() { # NAME PASSWORD
  case $1 in *:*) fail "the name of a user of the broker has no colon: $1" ;; esac
  mosquitto_passwd -b mosquitto/passwd "$1" "$2" || fail "the broker's password file does not take the user $1"
  chown 1883:1883 mosquitto/passwd
}

prepare() {
  for program in $programs; do
    mkdir -p "${program%:*}"
    chown "${program#*:}:${program#*:}" "${program%:*}"
  done
  # Earlier versions had users only for those who made a password file by hand; it goes on.
  if [ ! -e mosquitto/passwd ] && [ -e /mosquitto/data/passwd ]; then
    cat /mosquitto/data/passwd >mosquitto/passwd
  fi
  touch mosquitto/passwd
  chown -R 1883:1883 mosquitto /mosquitto/data

  # For you, for the health check, and for mosquitto_sub and its like in the broker's container, which read these files.
  keep mosquitto/owner ""
  login owner "$(cat mosquitto/owner)"
  for client in mosquitto_sub mosquitto_pub mosquitto_rr; do
    put mosquitto/$client "-u owner
-P $(cat mosquitto/owner)"
  done

  # The bridge. A broker elsewhere gets what .env says, and never a password that was made here.
  if [ -n "${MQTT_URL:-}" ]; then
    put bridge/mqtt_url "$MQTT_URL"
  elif [ -n "${MQTT_USERNAME:-}" ]; then
    [ -n "${MQTT_PASSWORD:-}" ] || fail "MQTT_USERNAME is set in .env, MQTT_PASSWORD is missing"
    login "$MQTT_USERNAME" "$MQTT_PASSWORD"
    put bridge/mqtt_url mqtt://mosquitto:1883
  else
    keep bridge/mqtt_password ""
    login kmp2mqtt "$(cat bridge/mqtt_password)"
    put bridge/mqtt_url "mqtt://kmp2mqtt:$(cat bridge/mqtt_password)@mosquitto:1883"
  fi

  keep nodered/mqtt_password ""
  login nodered "$(cat nodered/mqtt_password)"

  # The page, and Prometheus, which reads it.
  put bridge/http_username "${HTTP_USERNAME:-kmp2mqtt}"
  keep bridge/http_password "${HTTP_PASSWORD:-}"
  put prometheus/http_username "$(cat bridge/http_username)"
  put prometheus/http_password "$(cat bridge/http_password)"
  targets='[]' # no bridge without METERS
  [ -z "${METERS:-}" ] || targets='[{"targets": ["kmp2mqtt:8099"]}]'
  put prometheus/bridge.json "$targets"

  keep grafana/password "${GRAFANA_PASSWORD:-}"
}

show() {
  [ -e grafana/password ] || fail "there are none yet: docker compose up -d makes them"
  echo "broker   user owner      password $(cat mosquitto/owner)"
  echo "page     user $(cat bridge/http_username)   password $(cat bridge/http_password)"
  echo "Grafana  user admin      password $(cat grafana/password), until you change it there"
  echo "users of the broker: $(cut -d : -f 1 mosquitto/passwd | tr '\n' ' ')"
}

case ${1:-} in
prepare) prepare ;;
show) show ;;
add | remove)
  name=${2:-}
  case $name in
  '') fail "$1 whom?" ;;
  owner | kmp2mqtt | nodered) fail "$name is looked after by docker-compose.yml itself" ;;
  esac
  [ -e mosquitto/passwd ] || fail "there is no broker yet: docker compose up -d makes it"
  if [ "$1" = add ]; then
    password=$(random)
    login "$name" "$password"
    echo "user $name   password $password"
  else
    mosquitto_passwd -D mosquitto/passwd "$name" || fail "the broker has no user $name"
    chown 1883:1883 mosquitto/passwd
  fi
  echo "The broker takes notice with: docker compose kill --signal HUP mosquitto"
  ;;
*) fail "show, add NAME, remove NAME or prepare, not: $*" ;;
esac
