#!/usr/bin/env bash
# Runs one electramed command as several processes of this machine that train together, like the hosts of a pod.
#
#   PROCESSES=2 DEVICES=4 launch/local_processes.sh [--dry-run] pretrain --config=... --workdir=...
#
# Each process gets DEVICES virtual CPU devices (default 1). The processes communicate over loopback; the coordinator
# uses PORT (default 12421). SIGTERM is forwarded: all processes save the same step. Exits with 0 if all are done, 42 if all
# saved and stopped, else with the first other code. launch/until_done.sh restarts it after 42.
set -euo pipefail

# shellcheck source=launch/functions.sh
source "$(dirname "${BASH_SOURCE[0]}")/functions.sh"
(: "${PROCESSES:?set PROCESSES, the number of processes, e.g. PROCESSES=2}") || exit 2
DEVICES="${DEVICES:-1}"
PORT="${PORT:-12421}"
require_integers PROCESSES DEVICES PORT

if [[ "${1:-}" == --dry-run ]]; then
  dry_run=true
  shift
fi
(($#)) || fail "give an electramed command, e.g. pretrain --config=configs/pretrain_tiny.py --workdir=run"

forward_signals
for ((id = 0; id < PROCESSES; id++)); do
  command=(
    env
    "JAX_PLATFORMS=cpu"
    "XLA_FLAGS=${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=${DEVICES}"
    "JAX_COORDINATOR_ADDRESS=127.0.0.1:${PORT}"
    "JAX_NUM_PROCESSES=${PROCESSES}"
    "JAX_PROCESS_ID=${id}"
    electramed "$@"
  )
  if $dry_run; then
    run "${command[@]}"
  else
    "${command[@]}" &
    children+=($!)
  fi
done

outcome=0
for child in "${children[@]}"; do
  exit_code_of "$child"
  if ((code != 0 && (outcome == 0 || outcome == 42))); then outcome=$code; fi
done
exit "$outcome"
