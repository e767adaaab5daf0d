#!/usr/bin/env bash
# Installs the build, builds examples/ against it with find_package(sluice), and runs them.
#   examples.sh SOURCE-DIR BUILD-DIR COMPILER
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --install "$2" --prefix "$work/installed" >/dev/null
cmake -S "$1/examples" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER="$3" \
  -DCMAKE_PREFIX_PATH="$work/installed" >/dev/null
cmake --build "$work/build"
for expected in "$1"/tests/install/*.txt; do
  name=$(basename "$expected" .txt)
  "$1/tests/install/run_example.sh" "$work/build/$name" "$expected"
done
"$1/tests/install/my_service.sh" "$work/build/my_service" "$work/installed/bin/sluice"
