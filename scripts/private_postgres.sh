#!/usr/bin/env bash
# Runs a PostgreSQL of one's own in the foreground, until it is told to stop or its parent ends.
#   scripts/private_postgres.sh DIR PORT [SETTING=VALUE...]
# DIR is made when it is not there; the Unix socket stands in it, TCP is loopback only. Durable as in
# production (fsync on). As root it runs as the user postgres, because the server refuses root.
# Users: sluice (trusted on the Unix socket and on loopback). Database: sluice.
# With PRIVATE_POSTGRES_TEMPLATE=PATH the first one is kept as PATH-VERSION, and later ones are copies of it.
set -euo pipefail

[ $# -ge 2 ] || { sed -n '2,6p' "$0" | sed 's/^# \{0,1\}//'; exit 2; }
folder=$1 port=$2
shift 2
programs=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
[ -x "$programs/initdb" ] || { echo "error: no PostgreSQL server found; install postgresql-15" >&2; exit 1; }

as_user=(setpriv --pdeathsig INT)
mkdir -p "$folder"
if [ "$(id -u)" -eq 0 ]; then
  user=nobody
  id postgres >/dev/null 2>&1 && user=postgres
  chown "$user" "$folder"
  as_user=(setpriv "--reuid=$user" "--regid=$(id -g "$user")" --clear-groups --pdeathsig INT)
fi
cd "$folder"
template=${PRIVATE_POSTGRES_TEMPLATE:+$PRIVATE_POSTGRES_TEMPLATE-$(basename "$(dirname "$programs")")}
if [ ! -f "$folder/data/PG_VERSION" ]; then
  if [ -n "$template" ] && [ -d "$template" ]; then
    cp -a "$template" "$folder/data"
  else
    # Synced by the server's first checkpoint; a crash in between leaves a folder to be thrown away.
    LC_ALL=C "${as_user[@]}" "$programs/initdb" --no-sync --no-instructions --auth=trust --username=sluice \
      --encoding=UTF8 --locale=C -D "$folder/data" >"$folder/initdb.log" 2>&1 || { cat "$folder/initdb.log" >&2; exit 1; }
    if [ -n "$template" ]; then  # whole, or not at all: others look for it meanwhile
      half=$(mktemp -d "$template.XXXXXX")
      { cp -a "$folder/data" "$half/data" && mv -nT "$half/data" "$template"; } || true
      rm -rf "$half"
    fi
  fi
fi
settings=()
for setting in "$@"; do settings+=(-c "$setting"); done
exec "${as_user[@]}" "$programs/postgres" -D "$folder/data" -k "$folder" -p "$port" \
  -c listen_addresses=127.0.0.1 -c jit=off "${settings[@]}"
