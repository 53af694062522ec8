#!/usr/bin/env bash
# The gate that every commit passes. Says which step failed; prints little otherwise. "lint" leaves out the short tests,
# for who runs all tests anyway.
set -euo pipefail
cd "$(dirname "$0")/.."
for t in gofumpt staticcheck golangci-lint; do
  [ -x ".bin/$t" ] || { integration/deps.sh tools; break; }
done
step() { printf '%-14s' "$1"; shift; local s=$SECONDS; if out=$("$@" 2>&1); then echo "ok  $((SECONDS - s))s"; else echo "FAILED: $*"; echo "$out"; exit 1; fi; }
formatted() { local f; f=$(git ls-files -co --exclude-standard '*.go' | xargs -r .bin/gofumpt -l); [ -z "$f" ] || { echo "run .bin/gofumpt -w on:"; echo "$f"; return 1; }; }
step gofumpt formatted
step tidy go mod tidy -diff
step vet go vet ./...
step staticcheck .bin/staticcheck ./...
step golangci-lint .bin/golangci-lint run --allow-parallel-runners ./...
[ "${1:-}" = lint ] || step test go test -short -race ./...
