#!/usr/bin/env bash
# A rolling upgrade, and back again: two nodes under load, of which one after the other is replaced by the other
# version. The older version is SLUICE_PREVIOUS, or the last tag, or the first commit with nodes on PostgreSQL;
# it is built below BUILD. Only with SLUICE_LONG=1: it takes a compiler some minutes.
#   upgrade.sh CAMPAIGN SERVER BUILD
set -euo pipefail
[ -n "${SLUICE_LONG:-}" ] || { echo "skipped: builds the previous version; set SLUICE_LONG=1"; exit 77; }
campaign=$(readlink -f "$1") server=$(readlink -f "$2") build=$(readlink -f "$3")
cd "$(dirname "$0")/../.."
git rev-parse -q --verify HEAD >/dev/null 2>&1 || { echo "skipped: no history to take the previous version from"; exit 77; }
previous=${SLUICE_PREVIOUS:-$(git describe --tags --abbrev=0 2>/dev/null ||
  git log -S CRASH_POSTGRES --format=%H -- tests/crash/crash_server.cpp | tail -1)}
[ -n "$previous" ] || { echo "skipped: this clone has no previous version"; exit 77; }
commit=$(git rev-parse --short "$previous^{commit}")
folder=$build/previous/$commit
if [ ! -x "$folder/build/dev/tests/crash_server" ]; then
  mkdir -p "$folder"
  git archive "$commit" | tar -x -C "$folder"
  (cd "$folder" && cmake --preset dev >"$folder/log" 2>&1 && ninja -C build/dev crash_server >>"$folder/log" 2>&1) ||
    { tail -20 "$folder/log" >&2; exit 1; }
fi
echo "previous version: $commit, $(git log -1 --format=%s "$commit")"
exec "$campaign" "$server" upgrade "${SLUICE_CAMPAIGN_ROUNDS:-100}" 1 "$folder/build/dev/tests/crash_server"
