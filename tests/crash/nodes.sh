#!/usr/bin/env bash
# 8 kills and freezes of nodes on one PostgreSQL; with SLUICE_LONG=1 a hundred.
#   nodes.sh CAMPAIGN SERVER
exec "$1" "$2" nodes "$([ -n "${SLUICE_LONG:-}" ] && echo 100 || echo 8)" 1
