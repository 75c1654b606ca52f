#!/usr/bin/env bash
# Makes, in deploy/linux/generated, what the packages take from the sources: the settings file, the manual page, the
# change log, the copyright, and scripts and documents with the time of the commit. .goreleaser.yaml runs it before it builds.
#
#   MAINTAINER="Name <address>" deploy/linux/generate.sh VERSION SECONDS
#
# SECONDS is the time of the commit, since 1970.
set -euo pipefail
cd "$(dirname "$0")/../.."

[ $# = 2 ] || {
  echo "usage: deploy/linux/generate.sh VERSION SECONDS" >&2
  exit 2
}
version=$1
date=$(date --utc --date "@$2" +%Y-%m-%d)
out=deploy/linux/generated
rm -rf $out
mkdir -p $out

# .env.example, with METERS as a comment: a package must not open the first serial port it finds.
{
  cat <<'EOF'
# Settings of kmp2mqtt, read when the service starts: `sudo systemctl restart kmp2mqtt` after a change.
# METERS must be set, here; `ls /dev/serial/by-id` shows the adapters. All else has defaults.
EOF
  sed '1d; s/^\(METERS=\)/#\1/' .env.example
} >$out/kmp2mqtt.env

# roff wants hyphens that can be typed, and no line that begins with a dot or a quote.
roff() { sed 's/\\/\\e/g; s/-/\\-/g; s/^\([.'"'"']\)/\\\&\1/'; }

help=$(go run . help)
{
  cat <<EOF
.TH KMP2MQTT 1 "$date" "kmp2mqtt $version" "User Commands"
.SH NAME
kmp2mqtt \\- read Kamstrup meters over KMP and publish their values by MQTT
.SH SYNOPSIS
.B kmp2mqtt
.RI [ VERB ]
.RI [ ARGUMENTS ]
.SH DESCRIPTION
Without a verb it is the bridge, with settings from the environment.
The service
.B kmp2mqtt.service
takes them from
.IR /etc/kmp2mqtt/kmp2mqtt.env .
.SH VERBS
EOF
  sed -n 's/^  \([a-z]*\) \(.*[^ ]\)\? \{2,\}\(.*\)$/\1\t\2\t\3/p' <<<"$help" | roff | while IFS=$'\t' read -r verb args does; do
    printf '.TP\n.B %s\n%s\n' "$verb $args" "$does"
  done
  printf '.PP\n.nf\n'
  sed -n '/^LINE is/,$p' <<<"$help" | roff
  printf '.fi\n.SH ENVIRONMENT\n.nf\n'
  sed '1,3d' .env.example | roff
  cat <<'EOF'
.fi
.SH FILES
.TP
.I /etc/kmp2mqtt/kmp2mqtt.env
the settings of the service
.TP
.I /var/lib/kmp2mqtt
DATA_DIR of the service: what must survive a restart
EOF
} | gzip -9n >$out/kmp2mqtt.1.gz

# Debian's form has one entry; the rest is in CHANGELOG.md beside it.
{
  echo "kmp2mqtt (${version//-/\~}) unstable; urgency=medium"
  echo
  echo "  * CHANGELOG.md says what is new."
  echo
  echo " -- $MAINTAINER  $(LC_ALL=C date --utc --rfc-email --date "@$2")"
} | gzip -9n >$out/changelog.gz

{
  cat <<'EOF'
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: kmp2mqtt

Files: *
Copyright: the authors of kmp2mqtt
License: Apache-2.0
 On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.
Comment:
EOF
  sed 's/^$/./; s/^/ /' NOTICE
} >$out/copyright

# Packages keep the times of their scripts and documents.
cp -R deploy/linux/deb deploy/linux/rpm deploy/linux/apk docs $out
find $out -exec touch --date "@$2" {} +
