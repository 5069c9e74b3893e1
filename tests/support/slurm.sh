# A Slurm of a test's own, on the nodes of nodes.sh, and its checks. Sourced after nodes.sh, by a script that has called
# in_namespaces.

for tool in slurmctld slurmd sbatch srun scontrol; do
  command -v "$tool" >/dev/null || skip "$tool is not installed (launch/install-packages slurm)"
done

# start_slurm NODES CPUS GPUS RATE: a controller here and nodes with so many made-up processors and GPUs each (0: none),
# whose links have RATE, as make_nodes takes it. Leaves /run/test as the working directory; it ends with the script.
start_slurm() {
  local count=$1 cpus=$2 gpus=$3 i
  make_nodes "$count" "$4"
  mkdir /run/test /run/state
  cd /run/test || exit 1
  cat >/run/slurm.conf <<END
ClusterName=dtrain
SlurmctldHost=launcher(10.77.0.254)
SlurmUser=root
AuthType=auth/none
CredType=cred/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0
ReturnToService=2
MailProg=/bin/true
StateSaveLocation=/run/state
SlurmctldPidFile=/run/slurmctld.pid
SlurmctldLogFile=/run/test/slurmctld.log
SlurmdPidFile=/run/node/slurmd.pid
SlurmdSpoolDir=/run/node/spool
SlurmdLogFile=/run/test/slurmd-%n.log
GresTypes=gpu
NodeName=n[1-$count] CPUs=$cpus $([ "$gpus" -eq 0 ] || echo "Gres=gpu:$gpus") State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=600 State=UP
END
  # A device file is all that Slurm wants of a GPU.
  [ "$gpus" -eq 0 ] || echo "NodeName=n[1-$count] Name=gpu File=/dev/tty[0-$((gpus - 1))]" >/run/gres.conf
  echo PMIxCliTmpDirBase=/run/node >/run/mpi.conf # the nodes share /tmp
  # Later ones want control groups even where nothing here uses them; 22.05 lacks this word.
  case $(slurmd -V) in *" 22."*) ;; *) echo CgroupPlugin=disabled >/run/cgroup.conf ;; esac
  export SLURM_CONF=/run/slurm.conf
  daemons=()
  trap stop_slurm EXIT
  slurmctld -D &>/dev/null &
  daemons+=($!)
  for ((i = 1; i <= count; i++)); do
    on_node "$i" slurmd -D -N "n$i" &>/dev/null &
    daemons+=($!)
  done
  about=(slurmctld.log slurmd-n1.log)
  check "Slurm has $count nodes" by 20 nodes_are_idle "$count"
}
stop_slurm() {
  kill "${daemons[@]}" "${node_pids[@]}"
  wait
} 2>/dev/null

# ---- checks
# check WHAT COMMAND...: one line; where it fails, the files of the last `about` too.
failures=0
about=()
check() {
  local what=$1
  shift
  if "$@"; then
    echo "ok     $what ($SECONDS s)"
  else
    echo "FAILED $what ($SECONDS s)"
    tail -n 12 "${about[@]}"
    failures=$((failures + 1))
  fi
}
# by SECOND COMMAND...: tries until it succeeds, or until this test is so many seconds old.
by() {
  local end=$1
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.2
  done
}
job_is() { scontrol -o show job "$1" 2>/dev/null | grep -q "$2"; }
nodes_are_idle() { [ "$(sinfo -h -N -o %t | sort | uniq -c | tr -d ' ')" = "${1}idle" ]; }
says() { grep -Eq "$2" "$1"; }
same() { [ -n "$1" ] && [ "$1" = "$2" ]; }
