#!/usr/bin/env bash
# Runs a command under mpirun on two "nodes" of this machine: network namespaces with own host names, joined by a link of
# a given rate (tc tbf), each with half of the cpus. Needs root and iproute2; leaves nothing behind. All traffic stays inside the namespaces.
#   two_nodes.sh [-r RATE] [-n RANKS_A_NODE] [-x NAME[=VALUE] ...] COMMAND...     RATE: 1gbit (default), 100mbit, none
# Exits as mpirun does; 77 with a reason where such nodes cannot be made.
set -uo pipefail

skip() {
  echo "[  SKIPPED ] $*"
  exit 77
}

# ---- inside: a new network and mount namespace, where the two nodes are made -----------------------------------------
if [ "${DTRAIN_TWO_NODES_INSIDE:-}" = 1 ]; then
  rate=$1 ranks=$2 work=$3
  shift 3
  unset DTRAIN_TWO_NODES_INSIDE
  pids=()
  leave() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
  }
  trap leave EXIT

  # The launcher (this namespace) and the nodes share a switch for Open MPI's own messages; ranks talk over the same one.
  ip link set lo up
  ip link add name br0 type bridge || skip "no bridge device in this kernel"
  ip addr add 10.77.0.254/24 dev br0
  ip link set br0 up
  for i in 1 2; do
    # A node: its own network and host name; the process only holds the namespaces open.
    unshare --net --uts sh -c "hostname n$i && ip link set lo up && touch $work/up$i && exec sleep infinity" &
    pids+=($!)
  done
  for _ in $(seq 100); do
    [ -e "$work/up1" ] && [ -e "$work/up2" ] && break
    sleep 0.05
  done
  for i in 1 2; do
    pid=${pids[$((i - 1))]}
    ip link add "veth$i" type veth peer name eth0 netns "$pid" || skip "no veth device in this kernel"
    ip link set "veth$i" master br0 up
    nsenter -t "$pid" --net ip addr add "10.77.0.$i/24" dev eth0
    nsenter -t "$pid" --net ip link set eth0 up
    # Both ends: what a node sends, and what the switch sends to it.
    if [ "$rate" != none ]; then
      nsenter -t "$pid" --net tc qdisc add dev eth0 root tbf rate "$rate" burst 256kb latency 200ms || skip "no tbf in this kernel"
    fi
  done
  mkdir -p "$work/etc"
  printf '127.0.0.1 localhost\n10.77.0.1 n1\n10.77.0.2 n2\n10.77.0.254 launcher\n' >"$work/etc/hosts"
  mount --bind "$work/etc/hosts" /etc/hosts || skip "cannot mount over /etc/hosts"
  hostname launcher

  # A node's cpus: half of this machine's.
  cpus=$(nproc) half=$(($(nproc) / 2))
  [ "$half" -gt 0 ] || half=1

  # In place of ssh: `rsh.sh HOST COMMAND...` enters the node.
  cat >"$work/rsh.sh" <<EOF
#!/bin/sh
case "\$1" in n1) pid=${pids[0]} cpus=0-$((half - 1)) ;; n2) pid=${pids[1]} cpus=$((cpus > half ? half : 0))-$((cpus - 1)) ;; *) echo "no node \$1" >&2; exit 1 ;; esac
shift
exec taskset -c "\$cpus" nsenter -t "\$pid" --net --uts sh -c "mkdir -p $work/\$pid && TMPDIR=$work/\$pid exec sh -c '\$*'"
EOF
  chmod +x "$work/rsh.sh"
  mpirun --allow-run-as-root --oversubscribe --bind-to none -np $((2 * ranks)) --host "n1:$ranks,n2:$ranks" \
    --mca plm_rsh_agent "$work/rsh.sh" --mca btl tcp,self,vader --mca btl_tcp_if_include eth0 \
    --mca oob_tcp_if_include eth0,br0 --mca routed direct "$@"
  exit
fi

# ---- outside ------------------------------------------------------------------------------------------------------------
rate=1gbit ranks=1 exported=()
while getopts "r:n:x:" option; do
  case $option in
    r) rate=$OPTARG ;;
    n) ranks=$OPTARG ;;
    x) exported+=(-x "$OPTARG") ;;
    *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || { echo "error: two_nodes.sh: no command" >&2; exit 2; }
[ "$(id -u)" -eq 0 ] || skip "network namespaces need root"
for tool in ip tc unshare nsenter mpirun; do
  command -v "$tool" >/dev/null || skip "$tool is not installed"
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unshare --net --mount --uts true 2>/dev/null || skip "namespaces are not permitted here"
DTRAIN_TWO_NODES_INSIDE=1 unshare --net --mount --uts --propagation private "$0" "$rate" "$ranks" "$work" \
  "${exported[@]}" "$@"
