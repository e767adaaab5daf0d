#!/usr/bin/env bash
# Runs commands of sluice one after the other, each with --store of an empty database, all on one PostgreSQL that is
# made for them. Its status is that of the first that fails.
#   on_postgres.sh SLUICE 'bench durable --rounds 1'...
set -euo pipefail
sluice=$1
shift
folder=$(mktemp -d "${TMPDIR:-/tmp}/sluice-postgres-XXXXXX")
chmod 755 "$folder"  # the server's user is not ours when we are root
# On its Unix socket alone: no port that another could have.
"$(dirname "$0")/../../scripts/private_postgres.sh" "$folder/pg" 5432 listen_addresses= >"$folder/log" 2>&1 &
server=$!
trap 'kill -QUIT $server 2>/dev/null || true; wait $server || true; rm -rf "$folder"' EXIT
sql() { psql -h "$folder/pg" -U sluice -d template1 -qAtc "$1"; }
until sql 'SELECT 1' >/dev/null 2>&1; do
  kill -0 $server 2>/dev/null || { cat "$folder/log" >&2; exit 1; }
  sleep 0.1
done
number=0
for command in "$@"; do
  number=$((number + 1))
  sql "CREATE DATABASE sluice$number"
  echo "== sluice $command --store"
  # shellcheck disable=SC2086
  "$sluice" $command --store "postgres://sluice@/sluice$number?host=$folder/pg&port=5432"
done
