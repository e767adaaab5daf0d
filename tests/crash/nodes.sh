#!/usr/bin/env bash
# 8 kills and freezes of nodes on one PostgreSQL, whose clocks are four hours apart; with SLUICE_LONG=1
# SLUICE_CAMPAIGN_ROUNDS (default 100) of each. CRASH_SAME_CLOCKS=1: for a sanitizer, which bears no preloaded library.
#   nodes.sh CAMPAIGN SERVER
set -euo pipefail
campaign=$(readlink -f "$1") server=$(readlink -f "$2")
if [ -z "${CRASH_SAME_CLOCKS:-}" ]; then
  . "$(dirname "$0")/../../scripts/common.sh"
  ensure_packages faketime
  CRASH_FAKETIME=$(ls /usr/lib/*/faketime/libfaketimeMT.so.1)
  export CRASH_FAKETIME
fi
[ -n "${SLUICE_LONG:-}" ] || exec "$campaign" "$server" nodes 8 1
for kind in kill freeze; do "$campaign" "$server" nodes "${SLUICE_CAMPAIGN_ROUNDS:-100}" 1 "$kind"; done
