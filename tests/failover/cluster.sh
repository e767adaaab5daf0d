#!/usr/bin/env bash
# Three PostgreSQL nodes under Patroni and etcd, each in a network namespace of its own behind one
# bridge, as three machines on one switch. Only inside of namespaces made for it: see inside.sh.
#   cluster.sh DIR start             makes and starts everything; returns when all three are ready
#   cluster.sh DIR primary           prints the number of the node that takes writes, if one does
#   cluster.sh DIR whole             succeeds when all follow, and one may take over at any time
#   cluster.sh DIR kill N            SIGKILL of all that runs on the node      up N       starts it again
#   cluster.sh DIR crash N           SIGKILL of its PostgreSQL alone; Patroni lives
#   cluster.sh DIR freeze N          SIGSTOP of all that runs there            thaw N     SIGCONT
#   cluster.sh DIR cut N             its cable is pulled                       mend N     plugged in
#   cluster.sh DIR isolate N         it reaches its clients, but no other node mend N
#   cluster.sh DIR fill N            its disk is full                          empty N    has room again
#   cluster.sh DIR logs              what Patroni said last
set -euo pipefail
[ $# -ge 2 ] || { sed -n '4,13p' "$0" | sed 's/^# \{0,1\}//'; exit 2; }
dir=$1 verb=$2 n=${3:-}
programs=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
net=10.77.0
members=n1=http://$net.1:2380,n2=http://$net.2:2380,n3=http://$net.3:2380

in_node() { ip netns exec "n$1" setpriv --reuid=postgres --regid=postgres --clear-groups env HOME="$dir/n$1" "${@:2}"; }

configure() {
  local n=$1
  mkdir -p "$dir/n$n/disk" "$dir/n$n/etcd"
  mount -t tmpfs -o "size=${FAILOVER_DISK_MB:-2048}m" none "$dir/n$n/disk"
  mount -t tmpfs -o size=512m none "$dir/n$n/etcd"
  chown -R postgres: "$dir/n$n"
  # synchronous_mode_strict: a primary without a standby accepts nothing, rather than what may be lost.
  # etcd (API v2), not etcd3: with the latter Patroni 3.0 lets a stalled primary take its lock back.
  cat >"$dir/n$n/patroni.yml" <<YML
scope: sluice
name: n$n
restapi: {listen: '$net.$n:8008', connect_address: '$net.$n:8008'}
etcd: {hosts: ['$net.1:2379', '$net.2:2379', '$net.3:2379']}
bootstrap:
  dcs:
    ttl: 9
    loop_wait: 1
    retry_timeout: 3
    primary_start_timeout: 10
    maximum_lag_on_failover: 1048576
    synchronous_mode: true
    synchronous_mode_strict: true
    postgresql:
      use_pg_rewind: true
      use_slots: true
      parameters:
        fsync: 'on'
        wal_log_hints: 'on'
        max_connections: 60
        max_wal_size: 160MB
        min_wal_size: 48MB
        wal_keep_size: 64MB
        shared_buffers: 64MB
        tcp_user_timeout: 8000
  initdb: [{encoding: UTF8}, {locale: C}, data-checksums]
  pg_hba: ['local all all trust', 'host all all $net.0/24 trust', 'host replication all $net.0/24 trust']
postgresql:
  listen: $net.$n:5432
  connect_address: $net.$n:5432
  data_dir: $dir/n$n/disk/data
  bin_dir: $programs
  pgpass: $dir/n$n/pgpass
  authentication: {superuser: {username: postgres}, replication: {username: replicator}, rewind: {username: postgres}}
  parameters: {unix_socket_directories: '$dir/n$n'}
YML
}

up() {
  local n=$1
  pgrep --ns $$ --nslist pid -f "^etcd --name n$n " >/dev/null 2>&1 ||
    in_node "$n" setsid etcd --name "n$n" --data-dir "$dir/n$n/etcd/data" --enable-v2=true --log-level error \
      --listen-peer-urls "http://$net.$n:2380" --initial-advertise-peer-urls "http://$net.$n:2380" \
      --listen-client-urls "http://$net.$n:2379" --advertise-client-urls "http://$net.$n:2379" \
      --initial-cluster "$members" --initial-cluster-state new >>"$dir/n$n/etcd.log" 2>&1 </dev/null &
  in_node "$n" setsid patroni "$dir/n$n/patroni.yml" >>"$dir/n$n/patroni.log" 2>&1 </dev/null &
}

# Every node is asked, and what it says must come within a second.
ask() { timeout -s KILL 1.5 psql "host=$net.$1 user=postgres dbname=postgres connect_timeout=2" -qAtXc "$2" 2>/dev/null; }
primary() {
  local n
  for n in 1 2 3; do [ "$(ask $n 'SELECT NOT pg_is_in_recovery()')" = t ] && { echo $n; return 0; }; done
  return 1
}
pids() { ip netns pids "n$1"; }
signal() { local all; all=$(pids "$2"); [ -z "$all" ] || kill "-$1" $all 2>/dev/null || true; }

case $verb in
  start)
    ip link set lo up
    ip link add br0 type bridge
    ip addr add $net.254/24 dev br0
    ip link set br0 up
    for n in 1 2 3; do
      ip netns add n$n
      ip link add v$n type veth peer name eth0 netns n$n
      ip link set v$n master br0 up
      ip -n n$n addr add $net.$n/24 dev eth0
      ip -n n$n link set lo up
      ip -n n$n link set eth0 up
      configure $n
    done
    for n in 1 2 3; do up $n; done
    whole=no
    for _ in $(seq 300); do "$0" "$dir" whole && whole=yes && break; sleep 0.2; done
    [ $whole = yes ] || { tail -n 15 "$dir"/n?/patroni.log "$dir"/n?/etcd.log >&2; exit 1; }
    leader=$(primary)
    ask "$leader" 'CREATE ROLE sluice LOGIN; '
    ask "$leader" 'CREATE DATABASE crash OWNER sluice'
    ;;
  primary) primary ;;
  whole)
    # That PostgreSQL has a synchronous standby is not enough: Patroni must have written down which, or nobody
    # takes over from a primary that is lost before.
    n=$(primary)
    [ "$(ask "$n" "SELECT count(*) FILTER (WHERE sync_state = 'sync') || '/' || count(*) FROM pg_stat_replication
      WHERE state = 'streaming' AND application_name ~ '^n[123]$'")" = 1/2 ]
    timeout -s KILL 3 python3 -c 'import sys, urllib.request as r
sys.exit(b"sync_standby" not in r.urlopen(sys.argv[1], timeout=2).read())' "http://$net.$n:8008/cluster"
    ;;
  up) up "$n" ;;
  kill) signal KILL "$n" ;;
  crash) kill -KILL "$(head -1 "$dir/n$n/disk/data/postmaster.pid")" ;;
  freeze) signal STOP "$n" ;;
  thaw) signal CONT "$n" ;;
  cut) ip link set "v$n" down ;;
  isolate) for other in 1 2 3; do [ "$other" = "$n" ] || ip -n "n$n" route add blackhole "$net.$other/32"; done ;;
  mend)
    ip link set "v$n" up
    for other in 1 2 3; do ip -n "n$n" route del blackhole "$net.$other/32" 2>/dev/null || true; done
    ;;
  fill) dd if=/dev/zero of="$dir/n$n/disk/filler" bs=64k status=none 2>/dev/null || true ;;
  empty) rm -f "$dir/n$n/disk/filler" ;;
  logs) tail -n 25 "$dir"/n?/patroni.log; df -m "$dir"/n?/disk "$dir"/n?/etcd ;;
  *) echo "error: no verb $verb" >&2; exit 2 ;;
esac
