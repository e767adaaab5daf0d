#!/usr/bin/env bash
# Runs a command where it may make networks and file systems of its own: in namespaces that end, with
# every process in them, when it does. Its temporary files go with them.
#   inside.sh COMMAND...
set -euo pipefail
[ "$(id -u)" -eq 0 ] ||
  exec sudo --preserve-env=SLUICE_LONG,SLUICE_FAILOVER_ROUNDS,SLUICE_CAMPAIGN_ROUNDS,FAILOVER_DISK_MB,megabytes "$0" "$@"
if ! unshare --net --mount --pid --fork mount -t tmpfs none /mnt 2>/dev/null; then
  echo "skipped: needs the right to make namespaces (CAP_SYS_ADMIN)"
  exit 77
fi
TMPDIR=$(mktemp -d /tmp/sluice-failover-XXXXXX)
chmod 755 "$TMPDIR"
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
unshare --net --mount --pid --fork --kill-child --mount-proc bash -c '
  mount -t tmpfs none /run
  "$@" &
  wait $!' inside "$@"
