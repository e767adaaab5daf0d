#!/usr/bin/env bash
# Two servers on three PostgreSQL nodes under Patroni and etcd; the primary is killed under load. With
# SLUICE_LONG=1 SLUICE_FAILOVER_ROUNDS failovers (default 100: 25 each of killed, frozen, isolated, cut off), and one
# accident that the primary survives (out of room, crashed by turns) for every four of them; each 20 on a cluster of
# its own. With KINDs so many of those by turns. At the end it says how many there were of each.
#   failover.sh CAMPAIGN SERVER [KIND...]
set -euo pipefail
here=$(dirname "$(readlink -f "$0")") campaign=$(readlink -f "$1") server=$(readlink -f "$2")
shift 2
. "$here/../../scripts/common.sh"
ensure_packages postgresql-15 patroni etcd-server etcd-client python3-etcd python3-psycopg2 iproute2
if [ -z "${SLUICE_LONG:-}" ]; then
  exec "$here/inside.sh" "$campaign" "$server" failover 1 1 "${@:-kill}"
fi
left=${SLUICE_FAILOVER_ROUNDS:-100} seed=1
if [ $# -eq 0 ]; then
  set -- kill freeze isolate cut fill kill freeze isolate cut crash
  left=$(((left * 10 + 7) / 8))  # eight of these ten are failovers
fi
said=$(mktemp)
trap 'rm -f "$said"' EXIT
while [ "$left" -gt 0 ]; do
  rounds=$((left < 20 ? left : 20))
  "$here/inside.sh" "$campaign" "$server" failover "$rounds" "$seed" "$@" | tee -a "$said"
  left=$((left - rounds)) seed=$((seed + 1))
done
awk '$3 == "times:" { times[$1] += $2 } END { for (kind in times) printf "in all: %s %d times\n", kind, times[kind] }' "$said"
