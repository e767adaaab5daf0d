#!/usr/bin/env bash
# Two servers on three PostgreSQL nodes under Patroni and etcd; the primary is killed under load. With
# SLUICE_LONG=1 it is killed, frozen, cut off, isolated, out of room, crashed, SLUICE_FAILOVER_ROUNDS times
# in all (default 100), each 18 on a cluster of its own.
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
while [ "$left" -gt 0 ]; do
  rounds=$((left < 18 ? left : 18))
  "$here/inside.sh" "$campaign" "$server" failover "$rounds" "$seed" "$@"
  left=$((left - rounds)) seed=$((seed + 1))
done
