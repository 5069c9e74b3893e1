# Nodes on this machine, for tests between hosts: namespaces n1, n2, ... with a network, a host name and a /run/node of
# their own, joined by a switch that the script itself, "launcher", is on too. Sourced. A script first calls
# in_namespaces, which runs it again as the first process of namespaces of its own: however it ends, all that it started
# and mounted ends with it.

skip() {
  echo "[  SKIPPED ] $*"
  exit 77
}

# in_namespaces ARGUMENT...: returns where this script already runs inside; else runs it there and exits as it does.
in_namespaces() {
  [ "${DTRAIN_IN_NAMESPACES:-}" = 1 ] && { unset DTRAIN_IN_NAMESPACES; return; }
  [ "$(id -u)" -eq 0 ] || skip "network namespaces need root"
  local tool child private=(unshare --net --mount --uts --pid --fork --kill-child --mount-proc --propagation private)
  for tool in ip tc unshare nsenter setpriv mpirun; do
    command -v "$tool" >/dev/null || skip "$tool is not installed"
  done
  "${private[@]}" true 2>/dev/null || skip "namespaces are not permitted here"
  # A killed script takes unshare along, and unshare the namespaces' first process, without which they end.
  DTRAIN_IN_NAMESPACES=1 setpriv --pdeathsig KILL "${private[@]}" "$0" "$@" &
  child=$!
  trap 'kill -KILL "$child"' HUP INT TERM
  wait "$child"
  exit
}

# make_nodes COUNT RATE: n1 ... nCOUNT at 10.77.0.1 ..., what each sends limited to RATE (1gbit, 100mbit; none: not at all).
# node_pids[i] holds the namespaces of node i + 1. /run and /dev/shm are empty and this script's own from here on, and
# temporary files go to /run/node, there and here.
make_nodes() {
  local count=$1 rate=$2 i pid
  node_pids=()
  mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /dev/shm || skip "cannot mount over /run and /dev/shm"
  mkdir /run/node
  export TMPDIR=/run/node
  hostname launcher
  ip link set lo up
  ip link add name br0 type bridge || skip "no bridge device in this kernel"
  ip addr add 10.77.0.254/24 dev br0
  ip link set br0 up
  printf '127.0.0.1 localhost\n10.77.0.254 launcher\n' >/run/hosts
  for ((i = 1; i <= count; i++)); do echo "10.77.0.$i n$i" >>/run/hosts; done
  mount --bind /run/hosts /etc/hosts || skip "cannot mount over /etc/hosts"
  for ((i = 1; i <= count; i++)); do
    unshare --net --uts --mount --propagation private \
      sh -c "mount -t tmpfs tmpfs /run/node && hostname n$i && ip link set lo up && touch /run/up$i && exec sleep infinity" &
    node_pids+=($!)
  done
  for ((i = 1; i <= count; i++)); do
    pid=${node_pids[$((i - 1))]}
    for _ in $(seq 100); do
      [ -e "/run/up$i" ] && break
      sleep 0.05
    done
    ip link add "veth$i" type veth peer name eth0 netns "$pid" || skip "no veth device in this kernel"
    ip link set "veth$i" master br0 up
    on_node "$i" ip addr add "10.77.0.$i/24" dev eth0
    on_node "$i" ip link set eth0 up
    if [ "$rate" != none ]; then
      on_node "$i" tc qdisc add dev eth0 root tbf rate "$rate" burst 256kb latency 200ms || skip "no tbf in this kernel"
    fi
  done
}

# on_node I COMMAND...
on_node() {
  local pid=${node_pids[$(($1 - 1))]}
  shift
  nsenter -t "$pid" --net --uts --mount "$@"
}
