#!/usr/bin/env bash
# Runs on each worker of a TPU slice, in ~/electramed. launch/tpu_vm.sh calls it; not for manual use.
#
#   install [SOURCE]    install the package into a virtual environment, from ~/electramed/source or from SOURCE
#   start COMMAND...    run electramed COMMAND in the background, again as long as it exits with 42; append to log.txt
#   state               print idle (nothing was started), running, "ended CODE", stopped (by `stop`) or lost (reboot)
#   stop                send SIGTERM, and wait until the run has saved
#   logs                follow the log
set -euo pipefail

home="$HOME/electramed"
# shellcheck source=launch/functions.sh
source "$home/source/launch/functions.sh"

# supervisor: prints the id of the process that runs the command; fails if there is none.
supervisor() {
  local pid
  pid="$(cat "$home/pid" 2>/dev/null)" || return 1
  # After a reboot another process may have this id.
  [[ "$(ps -o args= -p "$pid")" == *until_done.sh* ]] && echo "$pid"
}

state() {
  if supervisor >/dev/null; then
    echo running
  elif [[ ! -e "$home/pid" ]]; then
    echo idle
  elif [[ -e "$home/stopped" ]]; then
    echo stopped
  elif [[ -e "$home/exit_code" ]]; then
    echo "ended $(cat "$home/exit_code")"
  else
    echo lost
  fi
}

install() {
  local spec="$home/source"
  case "${1:-}" in
    '') spec+="[$EXTRAS]" ;;
    gs://*)
      gcloud storage cp "$1" "$home/"
      spec="$home/${1##*/}[$EXTRAS]"
      ;;
    *) spec="electramed_jax[$EXTRAS] @ $1" ;;
  esac
  # The images have Python 3.10, which jax does not support. uv installs a newer one. Those of Compute Engine have no pip.
  if ! command -v uv >/dev/null; then
    python3 -m pip --version >/dev/null 2>&1 || sudo apt-get install --yes --quiet=2 python3-pip
    PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user uv
    PATH="$HOME/.local/bin:$PATH"
  fi
  uv venv --quiet --clear --python "$PYTHON" "$home/venv"
  uv pip install --quiet --python "$home/venv/bin/python" "$spec"
  # Without transparent huge pages the TPU starts and stops slowly on v5e and newer (warning of jax).
  sudo sh -c 'echo always >/sys/kernel/mm/transparent_hugepage/enabled' || true
  "$home/venv/bin/electramed" --version
}

start() {
  [[ -x "$home/venv/bin/electramed" ]] || fail "nothing is installed on this worker; run launch/tpu_vm.sh setup"
  if supervisor >/dev/null; then fail "a command is already running; end it with launch/tpu_vm.sh stop"; fi
  rm -f "$home"/{pid,exit_code,stopped}
  echo "$(date +%FT%T) electramed $(shell_quote "$@")" >>"$home/log.txt"
  cd "$home/source"
  PATH="$home/venv/bin:$PATH" STATE="$home" \
    setsid launch/until_done.sh electramed "$@" </dev/null >>"$home/log.txt" 2>&1 &
  for ((tenths = 0; tenths < 100; tenths++)); do
    if [[ -e "$home/pid" ]]; then return; fi
    sleep 0.1
  done
  fail "the command did not start; see $home/log.txt"
}

stop() {
  local pid
  if pid="$(supervisor)"; then
    touch "$home/stopped"
    kill -TERM "$pid"
    while supervisor >/dev/null; do sleep 0.2; done
  fi
  state
}

case "$1" in
  install | start | state | stop) "$@" ;;
  logs) exec tail -n 100 -F "$home/log.txt" ;;
  *) fail "no command '$1'" ;;
esac
