#!/usr/bin/env bash
# Runs every fuzz target of the module for a short while: test/fuzz.sh [TIME], 3s by default.
# A failing input is kept under the package's testdata/fuzz and from then on part of `go test`.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-3s}
for package in $(go list ./...); do
  targets=$(go test -list '^Fuzz' "$package")
  for target in $(grep '^Fuzz' <<<"$targets" || true); do
    echo "fuzz $package $target $time"
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$package"
  done
done
