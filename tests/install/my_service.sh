#!/usr/bin/env bash
# Drives examples/my_service over HTTP with `sluice send`, kills it, and asks again.
#   my_service.sh PROGRAM SLUICE
set -euo pipefail
work=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
fail() { echo "FAILED: $*"; cat log; exit 1; }
start() {  # reads what it prints until it listens
  coproc SERVICE { SLUICE_HTTP_PORT=0 exec "$program" 2>>log; }
  pid=$SERVICE_PID
  while read -r -u "${SERVICE[0]}" word value rest; do
    [ "$word" != token: ] || export SLUICE_TOKEN=$value
    [ "$word" != listening ] || { export SLUICE_SERVER=$rest; return; }
  done
  fail "it does not listen"
}
program=$1 sluice=$2
start
"$sluice" send theatre.open '{"show":"hamlet","seats":3}' --key opening >/dev/null || fail open
[ "$("$sluice" send theatre.book '{"show":"hamlet","seats":2}' --key ann-1)" = '{"booked":2}' ] || fail book
"$sluice" send theatre.book '{"show":"hamlet","seats":2}' --key bob-1 2>err && fail "booked too many"
grep -q sold_out err || fail "no reason: $(cat err)"
"$sluice" send theatre.book '{"show":"hamlet"}' --key bob-2 2>err && fail "booked nothing"
grep -q bad_order err || fail "no reason: $(cat err)"
"$sluice" send theatre.book '{"show":"hamlet","seats":1}' 2>err && fail "ran without a key"
kill -9 "$pid"; wait "$pid" 2>/dev/null || true
start
# The same key after the crash: the same reply, nothing is booked again; one seat is still there.
[ "$("$sluice" send theatre.book '{"show":"hamlet","seats":2}' --key ann-1 2>err)" = '{"booked":2}' ] || fail again
grep -q replayed err || fail "not replayed: $(cat err)"
[ "$("$sluice" send theatre.book '{"show":"hamlet","seats":1}' --key cid-1)" = '{"booked":1}' ] || fail last
"$sluice" tx graph theatre.booking | grep -q seats || fail graph
kill -TERM "$pid"; wait "$pid" || fail "it did not stop well"
pid=
echo "good"
