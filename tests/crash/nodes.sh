#!/usr/bin/env bash
# 8 kills and freezes of nodes on one PostgreSQL; with SLUICE_LONG=1 SLUICE_CAMPAIGN_ROUNDS (default 100) of each.
#   nodes.sh CAMPAIGN SERVER
set -euo pipefail
[ -n "${SLUICE_LONG:-}" ] || exec "$1" "$2" nodes 8 1
for kind in kill freeze; do "$1" "$2" nodes "${SLUICE_CAMPAIGN_ROUNDS:-100}" 1 "$kind"; done
