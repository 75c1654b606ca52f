#!/usr/bin/env bash
# Runs every fuzz target of the module for a short while: test/fuzz.sh [TIME], 2s by default.
# A failing input is kept under the package's testdata/fuzz and from then on part of `go test`.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-2s}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Left to itself the fuzzer spends up to a minute on making each input shorter that reaches new code.
fuzz() { # PACKAGE TARGET
  "$work/fuzz.test" -test.run '^$' -test.fuzz "^$2\$" -test.fuzztime "$time" -test.fuzzminimizetime 100x -test.fuzzcachedir "$work/corpus/$1" </dev/null 2>&1 | tee "$work/log"
}

# One test binary a package, built with the fuzzer's instrumentation and used for all of its targets.
go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Dir}}{{end}}' ./... | while read -r package dir; do
  go test -c -fuzz . -o "$work/fuzz.test" "$package"
  cd "$dir"
  "$work/fuzz.test" -test.list '^Fuzz' >"$work/targets"
  while read -r target; do
    echo "fuzz $package $target $time"
    for attempt in 1 2 3; do
      ! fuzz "$package" "$target" || continue 2
      # When the time runs out in the wrong moment, Go's fuzzer takes its own deadline for a failure. It has then no
      # input to show, and the target is run again; whatever else fails is a finding.
      grep -q '^ *context deadline exceeded$' "$work/log" && ! grep -qE 'Failing input|panic|DATA RACE|_test\.go:' "$work/log" || exit 1
    done
    echo "test/fuzz.sh: $target ran out of time $attempt times" >&2
    exit 1
  done <"$work/targets"
done
