#!/usr/bin/env bash
# Runs a command again for as long as it exits with 42: "preempted and saved, start me again".
#
#   launch/until_done.sh [--dry-run] electramed pretrain --config=... --workdir=...
#   PROCESSES=2 launch/until_done.sh launch/local_processes.sh pretrain --config=... --workdir=...
#
# SIGTERM and SIGINT are passed on and end it: the command saves and is not started again. Exits with its last code.
#
#   RESTARTS  how often it starts the command again at most (default: as often as it takes)
#   PAUSE     seconds before it does (default 5), in which the other hosts stop too
#   STATE     a folder for two files: `pid`, this process's, and at the end `exit_code` (default: none)
set -euo pipefail

# shellcheck source=launch/functions.sh
source "$(dirname "${BASH_SOURCE[0]}")/functions.sh"
RESTARTS="${RESTARTS:-999999999}"
PAUSE="${PAUSE:-5}"
whole_numbers RESTARTS PAUSE
if [[ "${1:-}" == --dry-run ]]; then
  dry_run=true
  shift
fi
(($#)) || fail "give a command to run, e.g. electramed pretrain --config=configs/pretrain_tiny.py --workdir=run"
if $dry_run; then
  run "$@"
  exit 0
fi

pass_on_signals
if [[ -n "${STATE:-}" ]]; then echo "$$" >"$STATE/pid"; fi
code=42
for ((start = 0; code == 42 && start <= RESTARTS; start++)); do
  if ((start > 0)); then
    echo "$(date +%FT%T) ${0##*/}: preempted and saved; starting again (restart $start)" >&2
    sleep "$PAUSE" &
    children=($!)
    if $told_to_stop; then kill "$!"; fi
    wait "$!" || true
  fi
  if $told_to_stop; then break; fi
  "$@" &
  children=($!)
  if $told_to_stop; then kill -TERM "$!" 2>/dev/null || true; fi
  exit_code_of "$!"
  if $told_to_stop; then break; fi
done
if [[ -n "${STATE:-}" ]]; then echo "$code" >"$STATE/exit_code"; fi
exit "$code"
