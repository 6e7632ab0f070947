#!/usr/bin/env bash
# Creates, uses and deletes one Cloud TPU slice. launch/README.md describes every step.
#
#   launch/tpu_vm.sh [--dry-run] create [OPTION...]   request the slice as a queued resource; OPTIONs go to gcloud
#   launch/tpu_vm.sh [--dry-run] wait                 wait until the slice is ready
#   launch/tpu_vm.sh [--dry-run] setup                install this checkout on all workers
#   launch/tpu_vm.sh [--dry-run] run COMMAND...       run electramed COMMAND in the background, again after exit 42
#   launch/tpu_vm.sh [--dry-run] logs                 follow the log of worker 0; WORKER=3 or WORKER=all: of others
#   launch/tpu_vm.sh [--dry-run] status               print the state of the queue and of each worker
#   launch/tpu_vm.sh [--dry-run] stop                 SIGTERM: all workers save the same step and stop
#   launch/tpu_vm.sh [--dry-run] delete               delete the slice, which ends its cost
#   launch/tpu_vm.sh [--dry-run] babysit COMMAND...   all of this, with a new slice after each preemption
#
# Settings
#   PROJECT, ZONE, NAME   Google Cloud project and zone, and the name of the slice
#   ACCELERATOR_TYPE      create, babysit: v5litepod-16, v4-32, v5p-32, v6e-16, ...
#   SPOT=1                create, babysit: spot capacity: cheaper, but may be preempted at any time (default 0)
#   SERVICE_ACCOUNT       create, babysit: account that reads and writes the bucket (default: Compute Engine's)
#   RUNTIME_VERSION       create, babysit: TPU image (default: that of the accelerator)
#   SOURCE                setup: git+https://..., the URL of a wheel or gs://.../file.whl (default: this checkout)
#   EXTRAS, PYTHON        setup: extras and Python version (default tpu,gcs and 3.12)
#   RESTARTS              babysit: maximum restarts of a killed command on one slice (default 20)
#   DELETE_WHEN_DONE=1    babysit: delete the slice at the end, also after an error (default 0)
#   POLL                  wait, babysit: seconds between two polls (default 60)
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=launch/functions.sh
source "$here/functions.sh"
if [[ "${1:-}" == --dry-run ]]; then
  dry_run=true
  shift
fi
subcommand="${1:-}"
case "$subcommand" in
  create | wait | setup | run | logs | status | stop | delete | babysit) shift ;;
  *) fail "give one of create, wait, setup, run, logs, status, stop, delete, babysit, not '$subcommand'" ;;
esac
(: "${PROJECT:?set PROJECT, the Google Cloud project, e.g. PROJECT=my-project}" \
  "${ZONE:?set ZONE, a zone with the accelerator, e.g. ZONE=us-west4-a}" \
  "${NAME:?set NAME, the name of the slice, e.g. NAME=electra}") || exit 2
RESTARTS="${RESTARTS:-20}"
POLL="${POLL:-60}"
require_integers RESTARTS POLL
where=("--project=$PROJECT" "--zone=$ZONE")
worker=electramed/source/launch/tpu_worker.sh
[[ "$NAME" =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] ||
  fail "NAME=$NAME is not a valid name; wanted lower-case letters, digits and hyphens"
reason="$(shell_quote gcloud compute tpus queued-resources describe "$NAME" "${where[@]}")"
refused="the request was refused; print the reason with: $reason"

log() { echo "$(date +%FT%T) $NAME: $1" >&2; }

needs_command() {
  (($#)) || fail "give an electramed command, e.g. pretrain --config=configs/pretrain_base.py --workdir=gs://bucket/run"
}

needs_accelerator() {
  (: "${ACCELERATOR_TYPE:?set ACCELERATOR_TYPE, e.g. ACCELERATOR_TYPE=v5litepod-16}") || exit 2
  # https://cloud.google.com/tpu/docs/runtimes, the table for JAX
  case "$ACCELERATOR_TYPE" in
    v2-* | v3-* | v4-*) runtime=tpu-ubuntu2204-base ;;
    v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
    v5p-*) runtime=v2-alpha-tpuv5 ;;
    v6e-*) runtime=v2-alpha-tpuv6e ;;
    *)
      local known="v4-*, v5litepod-*, v5p-* or v6e-*"
      [[ -n "${RUNTIME_VERSION:-}" ]] ||
        fail "ACCELERATOR_TYPE=$ACCELERATOR_TYPE: wanted $known; fix it, or set RUNTIME_VERSION too"
      ;;
  esac
  runtime="${RUNTIME_VERSION:-$runtime}"
}

# ssh_workers WORKERS COMMAND: runs a shell command on these workers; exits with the first exit code that is not 0.
ssh_workers() {
  run gcloud compute tpus tpu-vm ssh "$NAME" "${where[@]}" "--worker=$1" "--command=$2"
}

# run_on_workers WORKERS WORD...: runs tpu_worker.sh WORD... on these workers.
run_on_workers() {
  ssh_workers "$1" "test -x $worker || { echo 'nothing is installed on this worker; run launch/tpu_vm.sh setup' >&2; exit 2; }; \
$(shell_quote "$worker" "${@:2}")"
}

create() {
  needs_accelerator
  local options=("--node-id=$NAME" "--accelerator-type=$ACCELERATOR_TYPE" "--runtime-version=$runtime")
  if is_enabled SPOT; then options+=(--spot); fi
  if [[ -n "${SERVICE_ACCOUNT:-}" ]]; then options+=("--service-account=$SERVICE_ACCOUNT"); fi
  run gcloud compute tpus queued-resources create "$NAME" "${where[@]}" "${options[@]}" "$@"
}

delete() {
  run gcloud compute tpus queued-resources delete "$NAME" "${where[@]}" --force --quiet
}

# queue_state, node_state: print Google's state of the queued resource and of the TPU VM; nothing if there is none.
queue_state() {
  run gcloud compute tpus queued-resources list "${where[@]}" "--filter=name ~ /$NAME\$" '--format=value(state.state)'
}
node_state() {
  run gcloud compute tpus tpu-vm list "${where[@]}" "--filter=name ~ /$NAME\$" '--format=value(state)'
}

# slice_state: prints absent, ready, gone (preempted; to be deleted), refused, or "waiting (state of Google)".
slice_state() {
  local queue node
  queue="$(queue_state)" || return
  case "$queue" in
    '') echo absent ;;
    SUSPENDED) echo gone ;;
    FAILED) echo refused ;;
    ACTIVE)
      node="$(node_state)" || return
      case "$node" in
        READY) echo ready ;;
        '' | PREEMPTED | TERMINATED) echo gone ;;
        *) echo "waiting ($node)" ;;
      esac
      ;;
    *) echo "waiting ($queue)" ;;
  esac
}

wait_until_ready() {
  if $dry_run; then
    queue_state
    node_state
    return
  fi
  local state before=
  while state="$(slice_state)" || exit; [[ "$state" != ready ]]; do
    case "$state" in
      absent) fail "no queued resource $NAME; request it with launch/tpu_vm.sh create" ;;
      gone) fail "the slice was preempted; run launch/tpu_vm.sh delete, then create" ;;
      refused) fail "$refused" ;;
    esac
    if [[ "$state" != "$before" ]]; then log "$state"; fi
    before="$state"
    sleep "$POLL"
  done
  log ready
}

setup() {
  local contents=(configs launch) archive=/tmp/electramed.tar.gz
  if [[ -z "${SOURCE:-}" ]]; then contents+=(electramed_jax setup.py pyproject.toml README.md LICENSE); fi
  if ! $dry_run; then archive="$(mktemp -d)/electramed.tar.gz"; fi
  local unpack install
  unpack="set -e; if [ -x $worker ] && [ \"\$($worker state)\" = running ]; \
then echo 'a command is running; end it with launch/tpu_vm.sh stop' >&2; exit 2; fi; \
rm -rf electramed/source; mkdir -p electramed/source; tar -xzf electramed.tar.gz -C electramed/source"
  install="$(shell_quote env "EXTRAS=${EXTRAS:-tpu,gcs}" "PYTHON=${PYTHON:-3.12}" "$worker" install ${SOURCE:+"$SOURCE"})"
  run tar -czf "$archive" -C "$here/.." --exclude=__pycache__ "${contents[@]}" || return
  run gcloud compute tpus tpu-vm scp "$archive" "$NAME:electramed.tar.gz" "${where[@]}" --worker=all || return
  ssh_workers all "$unpack; $install" || return
  if ! $dry_run; then rm -r "$(dirname "$archive")"; fi
}

# worker_states: prints a line per worker: "bare" if nothing is installed, else the output of `tpu_worker.sh state`.
worker_states() {
  ssh_workers all "if [ -x electramed/venv/bin/electramed ]; then $worker state; else echo bare; fi"
}

status() {
  if $dry_run; then
    queue_state
    node_state
  else
    echo "queue: $(queue_state)"
    echo "slice: $(node_state)"
  fi
  worker_states
}

# next_step STATES: prints what babysit does next, from the states of the workers: setup, start, watch or "end CODE".
next_step() {
  if grep -qx bare <<<"$1"; then
    echo setup
  elif grep -qx running <<<"$1"; then
    echo watch # if one worker has failed, the others end soon
  elif grep -qx stopped <<<"$1"; then
    echo end 42
  elif grep -qxE 'idle|lost' <<<"$1"; then
    echo start
  else
    local codes code
    codes="$(sed -n 's/^ended //p' <<<"$1" | sort -nu)"
    # 42 and 75 ask for a restart. 128 and above: ended by a signal, sent by the system or by jax. Others are errors.
    for code in $codes; do
      if ((code != 0 && code != 42 && code != 75 && code < 128)); then
        echo "end $code"
        return
      fi
    done
    if [[ "$codes" == 0 ]]; then echo end 0; else echo start; fi
  fi
}

babysit() {
  needs_command "$@"
  needs_accelerator
  is_enabled DELETE_WHEN_DONE || true # only to check its value before anything is requested
  if $dry_run; then
    # shellcheck disable=SC2119 # the arguments belong to COMMAND, not to create
    create
    wait_until_ready
    setup
    run_on_workers all start "$@"
    worker_states
    return
  fi
  local state states step before='' restarts=0 was_ready=false polled=false
  while :; do
    if ! state="$(slice_state)"; then
      $was_ready || fail "gcloud cannot read the state of the slice; see its message above"
      state="unknown: gcloud failed; retrying"
    fi
    if [[ "$state" != "$before" ]]; then log "$state"; fi
    before="$state"
    case "$state" in
      absent | gone | refused)
        # Without a slice a new request loses nothing. Only a failure of the first request is an error of the user.
        if [[ "$state" == refused ]] && ! $was_ready; then fail "$refused"; fi
        if [[ "$state" != absent ]]; then delete || true; fi
        # shellcheck disable=SC2119
        create || $was_ready || exit
        restarts=0
        ;;
      ready)
        was_ready=true
        step=watch
        if states="$(worker_states)"; then
          step="$(next_step "$states")"
        else
          log "not all workers respond; retrying"
        fi
        # A command that ended before this script started is started again: a finished run exits at once.
        if ! $polled && [[ "$step" == end* ]]; then step=start; fi
        polled=true
        case "$step" in
          setup)
            log "installing"
            if setup; then continue; else log "setup failed; retrying"; fi
            ;;
          start)
            ((restarts++ <= RESTARTS)) || finish 1 "ended again after $RESTARTS restart(s) on this slice"
            log "starting: $(shell_quote electramed "$@")"
            run_on_workers all start "$@" || log "start failed; retrying"
            ;;
          end*) finish "${step#end }" "ended with exit code ${step#end }" ;;
        esac
        ;;
    esac
    sleep "$POLL"
  done
}

# finish CODE MESSAGE: prints the message, deletes the slice if DELETE_WHEN_DONE=1, and exits with the code.
finish() {
  log "$2"
  if is_enabled DELETE_WHEN_DONE; then
    delete || true
  else
    log "the slice still costs money; delete it with launch/tpu_vm.sh delete"
  fi
  exit "$1"
}

case "$subcommand" in
  create) create "$@" ;;
  babysit) babysit "$@" ;;
  setup | status | delete) "$subcommand" ;;
  wait) wait_until_ready ;;
  run)
    needs_command "$@"
    run_on_workers all start "$@"
    ;;
  logs) run_on_workers "${WORKER:-0}" logs ;;
  stop) run_on_workers all stop ;;
esac
