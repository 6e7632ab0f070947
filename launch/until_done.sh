#!/usr/bin/env bash
# Runs a command, and runs it again as long as it exits with 42 (preempted and saved).
#
#   launch/until_done.sh [--dry-run] electramed pretrain --config=... --workdir=...
#   PROCESSES=2 launch/until_done.sh launch/local_processes.sh pretrain --config=... --workdir=...
#
# SIGTERM and SIGINT are forwarded: the command saves and is not started again. Exits with the last code of the command.
#
#   RESTARTS  maximum number of restarts (default: no limit)
#   PAUSE     seconds before a restart, in which the other hosts stop too (default 5)
#   STATE     folder for two files: `pid` of this script and, at the end, `exit_code` (default: none)
set -euo pipefail

# shellcheck source=launch/functions.sh
source "$(dirname "${BASH_SOURCE[0]}")/functions.sh"
RESTARTS="${RESTARTS:-999999999}"
PAUSE="${PAUSE:-5}"
require_integers RESTARTS PAUSE
if [[ "${1:-}" == --dry-run ]]; then
  dry_run=true
  shift
fi
(($#)) || fail "give a command to run, e.g. electramed pretrain --config=configs/pretrain_tiny.py --workdir=run"
if $dry_run; then
  run "$@"
  exit 0
fi

forward_signals
if [[ -n "${STATE:-}" ]]; then echo "$$" >"$STATE/pid"; fi
code=42
for ((start = 0; code == 42 && start <= RESTARTS; start++)); do
  if ((start > 0)); then
    echo "$(date +%FT%T) ${0##*/}: preempted and saved; restarting (restart $start)" >&2
    sleep "$PAUSE" &
    children=($!)
    if $stop_requested; then kill "$!"; fi
    wait "$!" || true
  fi
  if $stop_requested; then break; fi
  "$@" &
  children=($!)
  if $stop_requested; then kill -TERM "$!" 2>/dev/null || true; fi
  exit_code_of "$!"
  if $stop_requested; then break; fi
done
if [[ -n "${STATE:-}" ]]; then echo "$code" >"$STATE/exit_code"; fi
exit "$code"
