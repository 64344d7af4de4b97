#!/usr/bin/env bash
# Run a command inside a SLURM of one machine: cluster.sh COMMAND [ARGUMENT...]
#
# slurmctld, slurmd and munged of Debian's slurm-wlm start in a scratch folder, with a configuration and ports of their
# own, and stop again when the command ends. Nothing of the machine's own SLURM is read or changed. Root only.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "cluster.sh: SLURM starts jobs as root only" >&2; exit 1; }
export PATH="$PATH:/usr/sbin"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
folder="$(mktemp -d /tmp/slurm-XXXXXX)"  # short: paths of sockets have at most 108 characters
daemons=()

stop() {
  trap - EXIT INT TERM HUP
  scancel --user=root --signal=KILL --full 2>>"$folder/stop.log" || true
  local pid
  for pid in ${daemons[@]+"${daemons[@]}"}; do
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -KILL "$pid" 2>/dev/null || true
  done
  for pid in $(grep -lsz "^SLURM_CONF=$folder/slurm.conf$" /proc/[0-9]*/environ | cut -d/ -f3); do
    [ "$pid" = $$ ] || [ "$pid" = "$PPID" ] || kill -KILL "$pid" 2>/dev/null || true  # steps that outlive slurmd
  done
  wait 2>/dev/null || true
  rm -rf "$folder"
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

trap stop EXIT
trap 'exit 130' INT TERM HUP
mkdir "$folder/state" "$folder/spool"
dd if=/dev/urandom of="$folder/munge.key" bs=1 count=1024 status=none
chmod 600 "$folder/munge.key"
# Two tasks must fit on one core, so the machine is said to have eight.
sed -e "s|@FOLDER@|$folder|g" -e "s|@HOST@|$(hostname -s)|g" -e "s|@CONTROL@|$(free_port)|" -e "s|@NODE@|$(free_port)|" \
  "$here/slurm.conf.in" >"$folder/slurm.conf"

munged --foreground --force --num-threads=2 --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
  --pid-file="$folder/munged.pid" --seed-file="$folder/munged.seed" --log-file="$folder/munged.log" \
  >"$folder/munged.out" 2>&1 </dev/null &
daemons=($!)
for _ in $(seq 100); do [ -S "$folder/munge.socket" ] && break; sleep 0.1; done
export SLURM_CONF="$folder/slurm.conf"
slurmctld -D -c >"$folder/slurmctld.out" 2>&1 </dev/null &
daemons=($! "${daemons[@]}")
slurmd -D >"$folder/slurmd.out" 2>&1 </dev/null &
daemons=($! "${daemons[@]}")
for _ in $(seq 300); do
  [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ] && break
  sleep 0.2
done
if [ "$(sinfo --noheader --format=%T 2>/dev/null)" != idle ]; then
  echo "cluster.sh: SLURM did not start" >&2
  tail -n 20 "$folder"/*.out "$folder"/*.log >&2
  exit 1
fi
"$@"
