#!/usr/bin/env bash
# Partitions, half-open connections, connection storms, restarts and full disks of the one PostgreSQL that two
# nodes work on: ten of them; with SLUICE_LONG=1 SLUICE_CAMPAIGN_ROUNDS of each kind (default 100).
#   database.sh CAMPAIGN SERVER [KIND...]
set -euo pipefail
campaign=$1 server=$2
shift 2
if [ $# -eq 0 ]; then set -- partition half_open storm restart full; fi
rounds=10
[ -z "${SLUICE_LONG:-}" ] || rounds=$((${SLUICE_CAMPAIGN_ROUNDS:-100} * $#))
# The disk that fills is a small one of its own, which takes the right to mount.
exec "$(dirname "$0")/../failover/inside.sh" bash -c '
  ip link set lo up
  export CRASH_SMALL_DISK=$TMPDIR/disk
  mkdir "$CRASH_SMALL_DISK" && mount -t tmpfs -o size=320m,mode=755 none "$CRASH_SMALL_DISK"
  "$@"' database "$campaign" "$server" database "$rounds" 1 "$@"
