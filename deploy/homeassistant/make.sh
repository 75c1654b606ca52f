#!/usr/bin/env bash
# Puts together the app repository of Home Assistant: deploy/homeassistant with the programs for both architectures.
#
#   deploy/homeassistant/make.sh                        into dist/homeassistant, for a local installation
#   deploy/homeassistant/make.sh --image REGISTRY/NAME  the same for an image that is published
#
#   --out DIR              where to; what a former run left there is replaced
#   --image REGISTRY/NAME  the image that Home Assistant pulls, without its tag, which is the version
#   --url URL              of the repository, as owners add it in Home Assistant
#   --maintainer TEXT      who answers for the repository, such as "Name <name@example.com>"
#
# VERSION, COMMIT: of the program; the version is main.go's unless it is set.
set -euo pipefail
cd "$(dirname "$0")/../.."

fail() {
  echo "make.sh: $*" >&2
  exit 2
}

out=dist/homeassistant image='' url='' maintainer=''
while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || fail "$1 needs a value"
  case $1 in
  --out) out=$2 ;;
  --image) image=$2 ;;
  --url) url=$2 ;;
  --maintainer) maintainer=$2 ;;
  *) fail "there is no option $1; there are --out, --image, --url and --maintainer" ;;
  esac
  shift 2
done

own=$(sed -n 's/^var version, commit = "\([^"]*\)".*/\1/p' main.go)
version=${VERSION:-$own}
version=${version#v}
commit=${COMMIT:-$(git rev-parse --short HEAD 2>/dev/null || true)}
[[ $version =~ ^[0-9A-Za-z][0-9A-Za-z._-]*$ ]] || fail "VERSION $version cannot be the tag of an image"
# What the Supervisor takes as an image, as a URL, and what is safe inside quotes in YAML.
[ -z "$image" ] || [[ $image =~ ^([a-zA-Z.:0-9-]+/)*[A-Za-z0-9_-]+/[A-Za-z0-9_-]+$ ]] || fail "--image $image is not REGISTRY/NAME, such as registry.example.com/owner/kmp2mqtt"
[ -z "$url" ] || [[ $url =~ ^https?://[^[:space:]\"\\]+$ ]] || fail "--url $url is no URL"
[[ $maintainer =~ ^[^\"\\[:cntrl:]]*$ ]] || fail "--maintainer holds a quotation mark, a backslash or a line break"

app=$out/kmp2mqtt
rm -rf "$out/repository.yaml" "$app"
mkdir -p "$out"
cp deploy/homeassistant/repository.yaml "$out/"
cp -R deploy/homeassistant/kmp2mqtt "$app"
cp LICENSE NOTICE "$app/"

sed -i "s/^version: \"[^\"]*\"/version: \"$version\"/" "$app/config.yaml"
[ -z "$image" ] || printf 'image: "%s"\n' "$image" >>"$app/config.yaml"
[ -z "$url" ] || printf 'url: "%s"\n' "$url" | tee -a "$out/repository.yaml" >>"$app/config.yaml"
[ -z "$maintainer" ] || printf 'maintainer: "%s"\n' "$maintainer" >>"$out/repository.yaml"

for arch in amd64 arm64; do
  mkdir -p "$app/bin/linux-$arch"
  CGO_ENABLED=0 GOOS=linux GOARCH=$arch go build -tags nethttpomithttp2 -trimpath \
    -ldflags "-s -w -X main.version=$version ${commit:+-X main.commit=$commit}" -o "$app/bin/linux-$arch/kmp2mqtt" .
done

if [ -z "$image" ]; then
  echo "$app is the app: copy this folder into the folder addons of Home Assistant (docs/home-assistant-app.md)"
  exit
fi
cat <<DONE
$out is the repository: push its content to the git repository that owners add. The image it names:

  docker buildx build --platform linux/amd64,linux/arm64 --build-arg BUILD_VERSION=$version --push \\
    --tag $image:$version --tag $image:latest $app
DONE
