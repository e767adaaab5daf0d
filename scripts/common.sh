# Shared by ./run, ./test and .ci/run: packages, configuration, build. Sourced, not run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

build_packages="clang-19 libboost1.81-dev libsqlite3-dev libspdlog-dev libfmt-dev nlohmann-json3-dev
  libcli11-dev libtomlplusplus-dev libpq-dev prometheus-cpp-dev libssl-dev zlib1g-dev libgrpc++-dev
  libprotobuf-dev protobuf-compiler protobuf-compiler-grpc ninja-build cmake
  pkg-config ccache mold g++ git ca-certificates"
test_packages="libgtest-dev libgmock-dev libbenchmark-dev libclang-rt-19-dev postgresql-15 pgbouncer
  patroni etcd-server etcd-client python3-etcd python3-psycopg2 iproute2 faketime"

say() { printf '\033[1m== %s\033[0m\n' "$*"; }

# Installs what is missing of the packages named, and says so.
ensure_packages() {
  local missing=()
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  say "installing: ${missing[*]}"
  local sudo=""
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "error: need root or sudo to install: ${missing[*]}" >&2; exit 1; }
    sudo=sudo
  fi
  $sudo apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# Configures and builds a preset; further arguments go to the build (targets).
build_preset() {
  local preset=$1
  shift
  say "building ($preset)"
  cmake --preset "$preset" >"build-$preset.log" 2>&1 || { cat "build-$preset.log"; rm -f "build-$preset.log"; exit 1; }
  rm -f "build-$preset.log"
  cmake --build --preset "$preset" -j 2 "$@"
}
