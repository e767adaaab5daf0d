#!/usr/bin/env bash
# Runs an example in a directory of its own; what it prints must be the file, line by line. A line of
# the file is a shell pattern, because ids differ from run to run.
#   run_example.sh PROGRAM EXPECTED
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && "$1") > "$work/out"
cat "$work/out"
mapfile -t got < "$work/out"
mapfile -t expected < "$2"
[ "${#got[@]}" = "${#expected[@]}" ] || { echo "expected ${#expected[@]} lines, got ${#got[@]}"; exit 1; }
for i in "${!expected[@]}"; do
  # shellcheck disable=SC2053
  [[ "${got[$i]}" == ${expected[$i]} ]] || { echo "line $((i + 1)): expected '${expected[$i]}', got '${got[$i]}'"; exit 1; }
done
