#!/usr/bin/env bash
# A SLURM for tests, two nodes on one machine, without systemd or accounting: slurm_up.sh FOLDER, slurm_up.sh --stop FOLDER.
# Needs root and the Debian packages slurm-wlm and munge. Use it with SLURM_CONF=FOLDER/slurm.conf.
set -euo pipefail

stop() { # FOLDER
  local file pid
  for file in "$1"/{slurmd-n1,slurmd-n2,slurmctld,munged}.pid; do
    [[ -s $file ]] || continue
    pid=$(<"$file")
    kill "$pid" 2>/dev/null || continue
    for _ in {1..100}; do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
  done
}

free_ports() { # COUNT
  python3 - "$1" <<'PYTHON'
import socket, sys

sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
for free in sockets:
    free.bind(("127.0.0.1", 0))
print(*(free.getsockname()[1] for free in sockets))
PYTHON
}

write_configuration() { # FOLDER
  local folder=$1 host cpus memory_mb controller_port n1_port n2_port
  host=$(hostname)
  cpus=$(nproc --all)
  memory_mb=$(awk '/MemTotal/ {print int($2 / 1024 * 0.45)}' /proc/meminfo)
  read -r controller_port n1_port n2_port < <(free_ports 3)
  cat >"$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$controller_port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munged.socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=1,sched_min_interval=0
# Ended jobs stay visible to scontrol, as there is no accounting to ask.
MinJobAge=86400
KillWait=10
GresTypes=gpu
NodeName=DEFAULT CPUs=$cpus RealMemory=$memory_mb State=UNKNOWN
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$n1_port Gres=gpu:1
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$n2_port
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
CONF
  # A device that is always there stands for a GPU.
  echo "NodeName=n1 Name=gpu File=/dev/null" >"$folder/gres.conf"
}

start() { # FOLDER
  local program
  for program in munged slurmctld slurmd sinfo; do
    command -v "$program" >/dev/null || { echo "slurm_up.sh: $program is missing; install slurm-wlm and munge." >&2; exit 127; }
  done
  [[ $(id -u) == 0 ]] || { echo "slurm_up.sh: the daemons need root." >&2; exit 77; }
  mkdir -p "$1"/{state,spool-n1,spool-n2}
  folder=$(realpath "$1")
  trap 'stop "$folder"' EXIT # unless all goes well
  write_configuration "$folder"
  export SLURM_CONF=$folder/slurm.conf
  (umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
  # --force: munged dislikes folders such as /tmp on the way, which are fine for a test.
  munged --force --socket="$folder/munged.socket" --key-file="$folder/munge.key" --seed-file="$folder/munge.seed" \
    --pid-file="$folder/munged.pid" --log-file="$folder/munged.log"
  slurmctld -f "$SLURM_CONF"
  slurmd -N n1 -f "$SLURM_CONF"
  slurmd -N n2 -f "$SLURM_CONF"
  for _ in {1..120}; do
    if [[ $(sinfo --noheader --states=idle --format=%D 2>/dev/null) == 2 ]]; then
      trap - EXIT
      return
    fi
    sleep 0.25
  done
  tail "$folder"/*.log >&2
  echo "slurm_up.sh: the nodes were not idle after 30 s; the logs are above and in $folder." >&2
  exit 1
}

if [[ ${1-} == --stop && -n ${2-} ]]; then
  stop "$2"
elif [[ $# == 1 && $1 != -* ]]; then
  start "$1"
else
  echo "usage: slurm_up.sh [--stop] FOLDER" >&2
  exit 2
fi
