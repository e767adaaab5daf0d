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
component() {
  cmake -S "$1/tests/install/component" -B "$work/$2" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER="$3" \
    -DCMAKE_PREFIX_PATH="$work/installed" -DEXAMPLES="$1/examples" -DCOMPONENT="$2" >"$work/$2.log" 2>&1
}
component "$1" resilience "$3" || { cat "$work/resilience.log"; exit 1; }
cmake --build "$work/resilience"
"$1/tests/install/run_example.sh" "$work/resilience/guarded_calls" "$1/tests/install/guarded_calls.txt"
component "$1" resilence "$3" && { echo "a component that does not exist was found"; exit 1; }
grep -q "no component 'resilence'" "$work/resilence.log" || { cat "$work/resilence.log"; exit 1; }
component "$1" store "$3" && { echo "the store was found without a database"; exit 1; }
"$1/tests/install/my_service.sh" "$work/build/my_service" "$work/installed/bin/sluice"
