#!/usr/bin/env bash
# Runs one electramed command as several processes of this machine that train together, as the hosts of a pod would.
#
#   PROCESSES=2 DEVICES=4 launch/local_processes.sh [--dry-run] pretrain --config=... --workdir=...
#
# Each process gets DEVICES virtual CPU devices (default 1); gradients travel between them over loopback. SIGTERM is passed on: all
# processes save the same step. Exits 0 when all are done, 42 when all saved and stopped, else with the first other code.
set -uo pipefail

: "${PROCESSES:?set PROCESSES, the number of processes, e.g. PROCESSES=2}"
DEVICES="${DEVICES:-1}"
PORT="${PORT:-12421}"

dry_run=false
if [[ "${1:-}" == "--dry-run" ]]; then
  dry_run=true
  shift
fi
: "${1:?give an electramed command, e.g. pretrain --config=configs/pretrain_tiny.py --workdir=run}"

pids=()
for ((id = 0; id < PROCESSES; id++)); do
  settings=(
    "JAX_PLATFORMS=cpu"
    "XLA_FLAGS=--xla_force_host_platform_device_count=${DEVICES}"
    "JAX_COORDINATOR_ADDRESS=127.0.0.1:${PORT}"
    "JAX_NUM_PROCESSES=${PROCESSES}"
    "JAX_PROCESS_ID=${id}"
  )
  if $dry_run; then
    echo "env ${settings[*]} electramed $*"
  else
    env "${settings[@]}" electramed "$@" &
    pids+=($!)
  fi
done
$dry_run && exit 0

trap 'kill -TERM "${pids[@]}" 2>/dev/null' TERM INT
code=0
for pid in "${pids[@]}"; do
  # `wait` also returns when the trap runs, with the process still going: ask again until it is gone.
  while :; do
    wait "$pid"
    one=$?
    kill -0 "$pid" 2>/dev/null || break
  done
  if ((one != 0 && (code == 0 || code == 42))); then code=$one; fi
done
exit "$code"
