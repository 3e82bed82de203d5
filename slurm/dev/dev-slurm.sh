#!/usr/bin/env bash
# A whole Slurm on this machine, for laptops and tests: loopback only, no systemd, no cgroups, no root but for `install`.
#
#   dev-slurm.sh install           install Debian's packages
#   dev-slurm.sh up                start what is not up; safe to repeat
#   dev-slurm.sh status            a line a daemon, then the nodes; exit status 0 only if all is up
#   dev-slurm.sh env               the line to eval: export SLURM_CONF=...
#   dev-slurm.sh start|stop|kill DAEMON
#                                  one of munged mariadbd slurmdbd slurmctld node1 node2 ...
#   dev-slurm.sh lose NODE         what a power cut does: the node's daemon and its jobs are gone at once
#   dev-slurm.sh down              cancel all jobs, stop the daemons that this script started, and no others
#   dev-slurm.sh wipe              down, and remove the folder
#
# Everything lives in the folder DEV_SLURM (default: $TMPDIR/dev-slurm); two folders are two clusters. There are two
# partitions, `gpu` and `preempt`, whose jobs a job of `gpu` puts back into the queue. At the first `up` these are read:
#   DEV_SLURM_NODES=2  DEV_SLURM_CPUS=8  DEV_SLURM_GPUS=4 (fake ones, a node)  DEV_SLURM_ACCOUNTING=yes
#   DEV_SLURM_MIN_JOB_AGE=3600 (seconds that slurmctld remembers a finished job)
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin

DIR=$(readlink -m -- "${DEV_SLURM:-${TMPDIR:-/tmp}/dev-slurm}")
ETC=$DIR/etc RUN=$DIR/run LOG=$DIR/log
export SLURM_CONF=$ETC/slurm.conf
PACKAGES=(slurmctld slurmd slurm-client munge slurmdbd mariadb-server-core mariadb-client-core)
PATIENCE=60

die() { echo "dev-slurm: $*" >&2; exit 1; }

# ---- daemons: RUN/<name> holds "pid start-time", so a pid that was given out again is never signalled ----
start_time() { sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
pid_of() {
  local pid started
  read -r pid started 2>/dev/null <"$RUN/$1" || return 1
  [ "$(start_time "$pid")" = "$started" ] || return 1
  [ "$(sed 's/^.*) //' "/proc/$pid/stat" 2>/dev/null | cut -c1)" != Z ] && echo "$pid"
}
launch() { # NAME COMMAND...: in a session of its own, holding nothing of ours open
  local name=$1; shift
  (cd / && exec 9>&- && exec setsid "$@" </dev/null >>"$LOG/$name.out" 2>&1) &
  echo "$! $(start_time $!)" >"$RUN/$name"
}
wait_for() { # NAME COMMAND...: until the command succeeds; not longer than the daemon lives
  local name=$1 end=$((SECONDS + PATIENCE)); shift
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $end ] || { [ -e "$RUN/$name" ] && ! pid_of "$name" >/dev/null; }; then
      tail -n 20 "$LOG/$name".* >&2 2>/dev/null || true
      die "$name did not come up"
    fi
    sleep 0.1
  done
}
stop() { # NAME: ask, then insist
  local pid end=$((SECONDS + 20))
  if pid=$(pid_of "$1"); then
    kill -TERM "$pid" 2>/dev/null || true
    while pid_of "$1" >/dev/null; do
      [ $SECONDS -lt $end ] || kill -KILL "$pid" 2>/dev/null || true
      sleep 0.1
    done
  fi
  rm -f "$RUN/$1"
}
processes_of() { # NODE: its slurmd and slurmstepds carry our mark; its jobs what Slurm sets in them
  grep -lzxF "DEV_SLURM_NODE=$DIR:$1" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3 || true
  local jobs
  jobs=$(grep -lzxF "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ 2>/dev/null || true)
  # shellcheck disable=SC2086
  [ -z "$jobs" ] || grep -lzxF "SLURMD_NODENAME=$1" $jobs 2>/dev/null | cut -d/ -f3 || true
}
lose() {
  local pid
  if pid=$(pid_of "$1"); then kill -KILL "$pid" 2>/dev/null || true; fi
  for pid in $(processes_of "$1"); do kill -KILL "$pid" 2>/dev/null || true; done
  rm -f "$RUN/$1"
}

# ---- configuration ----
port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
free_ports() { # the first of 2 + NODES free ports in a row
  local base port
  for ((base = 21000 + RANDOM % 200 * 50; base < 32000; base += 50)); do
    for ((port = base; port < base + 2 + NODES; port++)); do port_is_free "$port" || continue 2; done
    echo "$base"; return
  done
  die "no free ports"
}
read_settings() {
  [ -f "$ETC/settings" ] || die "nothing in $DIR: start with \`up\`"
  # shellcheck disable=SC1091
  . "$ETC/settings"
}
nodes() { seq -f node%.0f 1 "$NODES"; }
daemons() { # in the order of starting
  echo munged
  if [ "$ACCOUNTING" = yes ]; then printf '%s\n' mariadbd slurmdbd; fi
  echo slurmctld
  nodes
}
configure() {
  [ ${#RUN} -le 80 ] || die "$RUN is too long for a socket: set DEV_SLURM to a shorter path"
  mkdir -p "$ETC" "$RUN" "$LOG" "$DIR/state" "$DIR/spool" "$DIR/gpu"
  if [ ! -f "$ETC/settings" ]; then
    NODES=${DEV_SLURM_NODES:-2}
    printf '%s\n' "NODES=$NODES" "CPUS=${DEV_SLURM_CPUS:-8}" "GPUS=${DEV_SLURM_GPUS:-4}" "PORT=$(free_ports)" \
      "ACCOUNTING=${DEV_SLURM_ACCOUNTING:-yes}" "MIN_JOB_AGE=${DEV_SLURM_MIN_JOB_AGE:-3600}" >"$ETC/settings"
  fi
  read_settings
  local me host node i=0
  me=$(id -un) host=$(hostname -s)
  [ -s "$ETC/munge.key" ] || (umask 077; head -c 1024 /dev/urandom >"$ETC/munge.key")
  # slurmd wants a character device behind a GPU, and takes a link to one
  for ((i = 0; i < GPUS; i++)); do ln -sfn /dev/null "$DIR/gpu/nvidia$i"; done
  : >"$ETC/gres.conf"
  if [ "$GPUS" -gt 0 ]; then echo "Name=gpu File=$DIR/gpu/nvidia[0-$((GPUS - 1))]" >"$ETC/gres.conf"; fi
  {
    cat <<CONF
ClusterName=dev
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=$me
SlurmdUser=$me
AuthType=auth/munge
CredType=cred/munge
# cred_expire is also how long a job that was put back must wait
AuthInfo=socket=$RUN/munge.socket,cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool/%n
SlurmctldPidFile=$RUN/slurmctld.pid
SlurmdPidFile=$RUN/slurmd.%n.pid
SlurmctldLogFile=$LOG/slurmctld.log
SlurmdLogFile=$LOG/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
SwitchType=switch/none
MpiDefault=none
# nodes claim more than the machine has
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=256
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,default_queue_depth=2000
PriorityType=priority/basic
ReturnToService=2
SlurmdTimeout=10
KillWait=5
InactiveLimit=0
MinJobAge=$MIN_JOB_AGE
MaxArraySize=10001
MaxJobCount=20000
MailProg=/bin/true
PropagateResourceLimits=NONE
JobCompType=jobcomp/none
CONF
    if [ "$ACCOUNTING" = yes ]; then
      # AccountingStoragePass: the socket of munge, which slurmdbd is asked through
      printf '%s\n' AccountingStorageType=accounting_storage/slurmdbd AccountingStorageHost=127.0.0.1 \
        "AccountingStoragePort=$((PORT + 1))" "AccountingStoragePass=$RUN/munge.socket" AccountingStorageTRES=gres/gpu
    else
      echo AccountingStorageType=accounting_storage/none
    fi
    i=1
    for node in $(nodes); do
      i=$((i + 1))
      echo "NodeName=$node NodeHostname=$host NodeAddr=127.0.0.1 Port=$((PORT + i)) CPUs=$CPUS RealMemory=64000" \
        "$([ "$GPUS" -eq 0 ] || echo "Gres=gpu:$GPUS") State=UNKNOWN"
    done
    echo "PartitionName=gpu Nodes=ALL Default=YES MaxTime=7-0 PriorityTier=10 PreemptMode=OFF"
    echo "PartitionName=preempt Nodes=ALL MaxTime=7-0 PriorityTier=1 PreemptMode=REQUEUE GraceTime=20"
  } >"$SLURM_CONF"
  (umask 077; cat >"$ETC/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$RUN/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$((PORT + 1))
CommunicationParameters=NoInAddrAny
SlurmUser=$me
LogFile=$LOG/slurmdbd.log
PidFile=$RUN/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=$me
StorageLoc=slurm_acct
CONF
  )
}

# ---- start one daemon, and wait until it answers ----
start() {
  if pid_of "$1" >/dev/null; then return; fi
  case $1 in
    munged)
      launch munged munged --foreground --key-file="$ETC/munge.key" --socket="$RUN/munge.socket" --num-threads=4 \
        --pid-file="$RUN/munged.pid" --seed-file="$RUN/munged.seed" --log-file="$LOG/munged.log"
      wait_for munged sh -c "munge -S '$RUN/munge.socket' -n | unmunge -S '$RUN/munge.socket'" ;;
    mariadbd)
      if [ ! -f "$DIR/mysql/ready" ]; then
        rm -rf "$DIR/mysql"; mkdir -m 700 "$DIR/mysql"
        mariadb-install-db --no-defaults --user="$(id -un)" --datadir="$DIR/mysql" --skip-test-db \
          --auth-root-authentication-method=socket --auth-root-socket-user="$(id -un)" >"$LOG/mariadb-install.out" 2>&1 ||
          die "mariadb-install-db failed: $(tail -n 1 "$LOG/mariadb-install.out")"
        touch "$DIR/mysql/ready"
      fi
      launch mariadbd mariadbd --no-defaults --user="$(id -un)" --datadir="$DIR/mysql" --socket="$RUN/mysql.socket" \
        --skip-networking --pid-file="$RUN/mysql.pid" --skip-log-bin --performance-schema=OFF \
        --innodb-buffer-pool-size=64M --innodb-log-file-size=16M --innodb-flush-log-at-trx-commit=2 \
        --innodb-lock-wait-timeout=900
      wait_for mariadbd mariadb --no-defaults -S "$RUN/mysql.socket" -e 'select 1' ;;
    slurmdbd)
      launch slurmdbd env MYSQL_UNIX_PORT="$RUN/mysql.socket" slurmdbd -D
      wait_for slurmdbd sacctmgr -n list cluster
      sacctmgr -n list cluster format=cluster%20 | grep -qw dev || sacctmgr -i add cluster dev >/dev/null ;;
    slurmctld)
      launch slurmctld slurmctld -D
      wait_for slurmctld sh -c 'scontrol ping | grep -q "is UP"' ;;
    node*)
      grep -q "^NodeName=$1 " "$SLURM_CONF" || die "no node called $1"
      launch "$1" env DEV_SLURM_NODE="$DIR:$1" slurmd -D -N "$1"
      wait_for "$1" node_is_up "$1" ;;
    *) die "no daemon called $1" ;;
  esac
}
node_is_up() { # one that was down or drained by a crash comes back
  case $(sinfo -h -N -n "$1" -o %T | head -n 1) in
    idle | mixed | allocated | completing) true ;;
    drain* | down*) scontrol update nodename="$1" state=resume; false ;;
    *) false ;;
  esac
}

missing() {
  local program
  for program in munged slurmctld slurmd sbatch slurmdbd mariadbd; do
    command -v $program >/dev/null || printf '%s ' $program
  done
}
up() {
  local daemon
  [ -z "$(missing)" ] || die "not installed: $(missing); run: $0 install"
  configure
  for daemon in $(daemons); do start "$daemon"; done
  echo "dev-slurm: $NODES nodes are up. To use them: eval \"\$($0 env)\""
}
down() {
  [ -f "$ETC/settings" ] || return 0
  read_settings
  local daemon pid end=$((SECONDS + 15))
  if pid_of slurmctld >/dev/null; then
    timeout 20 scancel --quiet --user="$(id -un)" 2>/dev/null || true
    while [ $SECONDS -lt $end ] && [ -n "$(timeout 5 squeue -h 2>/dev/null)" ]; do sleep 0.2; done
  fi
  for daemon in $(nodes); do
    stop "$daemon"
    for pid in $(processes_of "$daemon"); do kill -KILL "$pid" 2>/dev/null || true; done
  done
  for daemon in $(daemons | tac | grep -v '^node'); do stop "$daemon"; done
}
status() {
  read_settings
  local daemon pid bad=0
  for daemon in $(daemons); do
    if pid=$(pid_of "$daemon"); then echo "$daemon: up, process $pid"; else echo "$daemon: down"; bad=1; fi
  done
  if [ $bad = 0 ]; then
    timeout 10 sinfo -N -o '%10N %10P %12T %6c %G' || bad=1
    for daemon in $(nodes); do node_is_up "$daemon" || bad=1; done
  fi
  return $bad
}
locked() { # one change at a time
  mkdir -p "$DIR"
  exec 9>"$DIR/lock"
  flock -w 120 9 || die "another dev-slurm.sh is busy in $DIR"
  "$@"
}

case ${1:-} in
  install)
    [ -n "$(missing)" ] || exit 0
    as_root=(); [ "$(id -u)" = 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get -o DPkg::Lock::Timeout=600 update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
      apt-get -o DPkg::Lock::Timeout=600 install -y -qq --no-install-recommends "${PACKAGES[@]}" ;;
  up) locked up ;;
  down) locked down ;;
  wipe) locked down; [ ! -f "$ETC/settings" ] || rm -rf -- "$DIR" ;;
  status) status ;;
  env) echo "export SLURM_CONF=$SLURM_CONF" ;;
  start | stop) read_settings; locked "$1" "${2:?name a daemon}" ;;
  kill) pid=$(pid_of "${2:?name a daemon}") || die "$2 is not up"; kill -KILL "$pid"; rm -f "$RUN/$2" ;;
  lose) lose "${2:?name a node}" ;;
  *) sed -n '2,19s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
