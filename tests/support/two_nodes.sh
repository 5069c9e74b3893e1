#!/usr/bin/env bash
# Runs a command under mpirun on two "nodes" of this machine (nodes.sh), joined by a link of a given rate, each with half
# of the cpus. Needs root and iproute2; leaves nothing behind. All traffic stays inside the namespaces.
#   two_nodes.sh [-r RATE] [-n RANKS_A_NODE] [-c SECONDS] [-x NAME[=VALUE] ...] COMMAND...
# RATE: 1gbit (default), 100mbit, none. -c: after so many seconds nothing passes between the nodes any more.
# Exits as mpirun does; 77 with a reason where such nodes cannot be made.
set -uo pipefail
. "$(dirname "$0")/nodes.sh"
in_namespaces "$@"

rate=1gbit ranks=1 cut='' exported=()
while getopts "r:n:c:x:" option; do
  case $option in
    c) cut=$OPTARG ;;
    r) rate=$OPTARG ;;
    n) ranks=$OPTARG ;;
    x) exported+=(-x "$OPTARG") ;;
    *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || { echo "error: two_nodes.sh: no command" >&2; exit 2; }
make_nodes 2 "$rate"

# A node's cpus: half of this machine's.
cpus=$(nproc) half=$(($(nproc) / 2))
[ "$half" -gt 0 ] || half=1

# In place of ssh: `rsh.sh HOST COMMAND...` enters the node.
cat >/run/rsh.sh <<END
#!/bin/sh
case "\$1" in
  n1) pid=${node_pids[0]} cpus=0-$((half - 1)) ;;
  n2) pid=${node_pids[1]} cpus=$((cpus > half ? half : 0))-$((cpus - 1)) ;;
  *) echo "no node \$1" >&2; exit 1 ;;
esac
shift
exec taskset -c "\$cpus" nsenter -t "\$pid" --net --uts --mount sh -c "\$*"
END
chmod +x /run/rsh.sh
if [ -n "$cut" ]; then # the launcher still reaches both
  (sleep "$cut" && for i in 1 2; do ip link set "veth$i" type bridge_slave isolated on; done) &
fi
mpirun --allow-run-as-root --oversubscribe --bind-to none -np $((2 * ranks)) --host "n1:$ranks,n2:$ranks" \
  --mca plm_rsh_agent /run/rsh.sh --mca btl tcp,self,vader --mca btl_tcp_if_include eth0 \
  --mca oob_tcp_if_include eth0,br0 --mca routed direct "${exported[@]}" "$@"
