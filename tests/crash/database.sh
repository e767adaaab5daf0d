#!/usr/bin/env bash
# Partitions, half-open connections, connection storms, restarts, an administrator's maintenance and full disks of the
# one PostgreSQL that two nodes work on: twelve of them; with SLUICE_LONG=1 SLUICE_CAMPAIGN_ROUNDS of each kind (default 100).
#   database.sh CAMPAIGN SERVER [KIND...]
set -euo pipefail
campaign=$1 server=$2
shift 2
if [ $# -eq 0 ]; then set -- partition half_open storm restart maintenance full; fi
rounds=12 megabytes=320  # what the database writes itself has to fit
if [ -n "${SLUICE_LONG:-}" ]; then rounds=$((${SLUICE_CAMPAIGN_ROUNDS:-100} * $#)) megabytes=$((320 + rounds * 4)); fi
# Rewriting a table takes its size again, and the log that goes with it.
if [ -n "${SLUICE_LONG:-}" ] && [[ " $* " == *" maintenance "* ]]; then megabytes=$((megabytes + ${SLUICE_CAMPAIGN_ROUNDS:-100} * 16)); fi
export megabytes
# The disk that fills is a small one of its own, which takes the right to mount.
exec "$(dirname "$0")/../failover/inside.sh" bash -c '
  ip link set lo up
  export CRASH_SMALL_DISK=$TMPDIR/disk
  mkdir "$CRASH_SMALL_DISK" && mount -t tmpfs -o size=${megabytes}m,mode=755 none "$CRASH_SMALL_DISK"
  "$@"' database "$campaign" "$server" database "$rounds" 1 "$@"
