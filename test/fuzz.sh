#!/usr/bin/env bash
# Runs every fuzz target of the module for a short while: test/fuzz.sh [TIME], 2s by default.
# A failing input is kept under the package's testdata/fuzz and from then on part of `go test`.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-2s}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# One test binary a package, built with the fuzzer's instrumentation and used for all of its targets.
go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Dir}}{{end}}' ./... | while read -r package dir; do
  go test -c -fuzz . -o "$work/fuzz.test" "$package"
  cd "$dir"
  "$work/fuzz.test" -test.list '^Fuzz' >"$work/targets"
  while read -r target; do
    echo "fuzz $package $target $time"
    "$work/fuzz.test" -test.run '^$' -test.fuzz "^$target\$" -test.fuzztime "$time" -test.fuzzcachedir "$work/corpus/$package" </dev/null
  done <"$work/targets"
done
