#!/usr/bin/env bash
# 25 kills of one database; with SLUICE_LONG=1 a thousand.
#   kills.sh CAMPAIGN SERVER
exec "$1" "$2" kills "$([ -n "${SLUICE_LONG:-}" ] && echo 1000 || echo 25)" 1
