#!/usr/bin/env bash
# 4,000 buyers, a stock of 500, 8 kills; with SLUICE_LONG=1 100,000 buyers, 1,000 and 20.
#   flash_sale.sh SALE SLUICE [postgres]
if [ -n "${SLUICE_LONG:-}" ]; then
  exec "$1" "$2" 100000 1000 20 1 "${@:3}"
fi
exec "$1" "$2" 4000 500 8 1 "${@:3}"
