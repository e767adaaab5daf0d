#!/usr/bin/env bash
# Installs the build, builds examples/ against it with find_package(sluice), and runs the first flow.
#   examples.sh SOURCE-DIR BUILD-DIR COMPILER
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --install "$2" --prefix "$work/installed" >/dev/null
cmake -S "$1/examples" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER="$3" \
  -DCMAKE_PREFIX_PATH="$work/installed" >/dev/null
cmake --build "$work/build"
cd "$work"
"$work/build/first_flow" | tee out
[ "$(grep -c ': committed' out)" = 2 ] && [ "$(grep -c ': aborted' out)" = 1 ]
"$work/build/guarded_calls" | tee out
grep -q 'closed -> open' out && grep -q 'half_open -> closed' out
grep -q 'answered: most, refused by the open breaker: some, breaker: closed' out
