#!/usr/bin/env bash
# Rounds of `sluice demo`: each starts a real server, kills it with SIGKILL under load at a seeded
# instant, restarts it, and checks every acknowledged reply and the books. 25 rounds; with
# SLUICE_LONG=1 a thousand.
#   kill_rounds.sh PATH-TO-SLUICE
set -u
rounds=25
[ -n "${SLUICE_LONG:-}" ] && rounds=1000
for seed in $(seq 1 "$rounds"); do
  if ! report=$("$1" demo --requests 1500 --seed "$seed" 2>&1); then
    echo "$report"
    echo "round with seed $seed failed; repeat it with: sluice demo --requests 1500 --seed $seed"
    exit 1
  fi
done
echo "$rounds rounds: nothing lost, nothing doubled, no reply changed"
