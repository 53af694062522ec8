#!/usr/bin/env bash
# Runs all tests: first those of the packages, then, alone on the machine, those that boot virtual machines. Shows
# failures in full and the slowest tests at the end. The whole output lies in .run/test.log.
set -uo pipefail
cd "$(dirname "$0")/.."
mkdir -p .run
log=.run/test.log
: >"$log"
status=0
# Each package is one line unless it fails; then its output is shown.
run() {
  go test -race -timeout 25m -v "$@" 2>&1 | tee -a "$log" | grep -E '^(ok|FAIL|--- (FAIL|SKIP)|panic:|# )'
  [ "${PIPESTATUS[0]}" = 0 ] || status=1
}
mapfile -t packages < <(go list ./... | grep -v '/integration$')
run "${packages[@]}"
echo "booting virtual machines; their logs are below .run/e2e"
run ./integration
echo "slowest tests:"
sed -nE 's/^--- (PASS|FAIL): ([^ ]+) \(([0-9.]+)s\)/\3s \2/p' "$log" | sort -rn | head -10
count() { grep -cE "^ *--- $1: " "$log"; }
echo "$(count PASS) passed, $(count FAIL) failed, $(count SKIP) skipped"
if [ "$status" != 0 ]; then
  echo "what the failed tests printed (all of it is in $log):"
  grep -E -B40 '^ *--- FAIL|^panic:|^# ' "$log" | grep -vE '^(=== (RUN|PAUSE|CONT)|--- PASS| +--- PASS)' | tail -300
fi
exit "$status"
