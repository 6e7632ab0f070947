#!/usr/bin/env bash
# Creates, uses and deletes Cloud TPU slices. launch/README.md describes every step.
#
#   launch/tpu_vm.sh [--dry-run] create [OPTION...]   print the cost and request the slices; OPTIONs go to gcloud
#   launch/tpu_vm.sh [--dry-run] wait                 wait until the slices are ready
#   launch/tpu_vm.sh [--dry-run] setup                install this checkout on all workers
#   launch/tpu_vm.sh [--dry-run] run COMMAND...       run electramed COMMAND in the background, again after exit 42
#   launch/tpu_vm.sh [--dry-run] logs                 follow the log of worker 0; WORKER=3 or WORKER=all: of others
#   launch/tpu_vm.sh [--dry-run] collect              copy the logs of all workers to LOGS
#   launch/tpu_vm.sh [--dry-run] status               print the state of the slices and of each worker
#   launch/tpu_vm.sh [--dry-run] stop                 SIGTERM: all workers save the same step and stop
#   launch/tpu_vm.sh [--dry-run] delete               delete the slices, which ends their cost
#   launch/tpu_vm.sh [--dry-run] babysit COMMAND...   all of this, with new slices after each preemption
#
# Settings
#   PROJECT, ZONE, NAME   Google Cloud project and zone, and the name of the slices
#   TOPOLOGY              slice as in electramed compile: v5e:4x4, v4:2x2x4, v5p:2x2x4, v6e:4x4, tpu7x:2x2x4
#   SLICES                number of slices that train together (default 1)
#   API                   queue: queued resources of the Cloud TPU API (default; v4, v5e, v5p, v6e)
#                         compute: Compute Engine (v5p, v6e, tpu7x; default of tpu7x; one slice)
#   SPOT=1                create, babysit: spot capacity: cheaper, but may be preempted at any time (default 0)
#   FLEX_START_HOURS      create, babysit: capacity for so many hours, at most 168, that starts when there is room
#   PRICE_PER_CHIP_HOUR   create, babysit: USD, for the line with the cost
#   SERVICE_ACCOUNT       create, babysit: account that reads and writes the bucket (default: Compute Engine's)
#   RUNTIME_VERSION       create, babysit: image of the Cloud TPU API (default: that of the generation)
#   SOURCE                setup: git+https://..., the URL of a wheel or gs://.../file.whl (default: this checkout)
#   EXTRAS, PYTHON        setup: extras and Python version (default tpu,gcs and 3.12)
#   LOGS                  collect, babysit: folder for the logs of all workers (default logs-NAME)
#   SLICE, WORKER         logs: slice and worker (default 0 and 0)
#   RESTARTS              babysit: maximum restarts of a killed command on one slice (default 20)
#   DELETE_WHEN_DONE=1    babysit: delete the slices at the end, also after an error (default 0)
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
  create | wait | setup | run | logs | collect | status | stop | delete | babysit) shift ;;
  *) fail "give one of create, wait, setup, run, logs, collect, status, stop, delete, babysit, not '$subcommand'" ;;
esac
(: "${PROJECT:?set PROJECT, the Google Cloud project, e.g. PROJECT=my-project}" \
  "${ZONE:?set ZONE, a zone with the accelerator, e.g. ZONE=us-west4-a}" \
  "${NAME:?set NAME, the name of the slices, e.g. NAME=electra}" \
  "${TOPOLOGY:?set TOPOLOGY, the slice, e.g. TOPOLOGY=v5e:4x4}") || exit 2
RESTARTS="${RESTARTS:-20}"
POLL="${POLL:-60}"
require_integers RESTARTS POLL
where=("--project=$PROJECT" "--zone=$ZONE")
worker=electramed/source/launch/tpu_worker.sh
[[ "$NAME" =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] ||
  fail "NAME=$NAME is not a valid name; wanted lower-case letters, digits and hyphens"
read_slice
check_capacity
if [[ -z "${API:-}" ]]; then if [[ "$RUNTIME" == - ]]; then API=compute; else API=queue; fi; fi
case "$API" in
  queue)
    [[ "$RUNTIME" != - ]] || fail "API=queue does not have $TOPOLOGY; use API=compute or launch/gke.sh"
    # shellcheck source=launch/cloud_tpu_api.sh
    source "$here/cloud_tpu_api.sh"
    ;;
  compute)
    [[ "$IMAGE_FAMILY" != - ]] || fail "API=compute does not have $TOPOLOGY; use API=queue or launch/gke.sh"
    ((SLICES == 1)) || fail "API=compute connects one slice, not SLICES=$SLICES; use API=queue or launch/gke.sh"
    # shellcheck source=launch/compute_engine_api.sh
    source "$here/compute_engine_api.sh"
    ;;
  *) fail "API=$API: wanted queue or compute" ;;
esac

log() { echo "$(date +%FT%T) $NAME: $1" >&2; }

needs_command() {
  (($#)) || fail "give an electramed command, e.g. pretrain --config=configs/pretrain_base.py --workdir=gs://bucket/run"
}

# run_on_workers WORKERS WORD...: runs tpu_worker.sh WORD... on these workers.
run_on_workers() {
  ssh_workers "$1" "test -x $worker || { echo 'nothing is installed on this worker; run launch/tpu_vm.sh setup' >&2; exit 2; }; \
$(shell_quote "$worker" "${@:2}")"
}

create() {
  print_cost
  request_slices "$@"
}

wait_until_ready() {
  if $dry_run; then
    print_state
    return
  fi
  local state before=
  while state="$(slice_state)" || exit; [[ "$state" != ready ]]; do
    case "$state" in
      absent) fail "nothing is requested as $NAME; request it with launch/tpu_vm.sh create" ;;
      gone) fail "the slice was preempted, or its time is over; run launch/tpu_vm.sh delete, then create" ;;
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
  copy_to_workers "$archive" electramed.tar.gz || return
  ssh_workers all "$unpack; $install" || return
  if ! $dry_run; then rm -r "$(dirname "$archive")"; fi
}

# worker_states: prints a line per worker: "bare" if nothing is installed, else the output of `tpu_worker.sh state`.
worker_states() {
  ssh_workers all "if [ -x electramed/venv/bin/electramed ]; then $worker state; else echo bare; fi"
}

status() {
  print_state
  worker_states
}

# collect: copies the whole log of each worker.
collect() {
  collect_output "${LOGS:-logs-$NAME}" "cat electramed/log.txt"
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
  is_enabled DELETE_WHEN_DONE || true # only to check its value before anything is requested
  if $dry_run; then
    # shellcheck disable=SC2119 # the arguments belong to COMMAND, not to create
    create
    wait_until_ready
    setup
    run_on_workers all start "$@"
    worker_states
    collect
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
        if [[ "$state" != absent ]]; then delete_slices || true; fi
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

# finish CODE MESSAGE: prints the message, collects the logs, deletes the slices if DELETE_WHEN_DONE=1, and exits.
finish() {
  log "$2"
  if collect; then log "the logs of all workers are in ${LOGS:-logs-$NAME}"; else log "the logs were not collected"; fi
  if is_enabled DELETE_WHEN_DONE; then
    delete_slices || true
  else
    log "the slice still costs money; delete it with launch/tpu_vm.sh delete"
  fi
  exit "$1"
}

case "$subcommand" in
  create) create "$@" ;;
  babysit) babysit "$@" ;;
  setup | status | collect) "$subcommand" ;;
  delete) delete_slices ;;
  wait) wait_until_ready ;;
  run)
    needs_command "$@"
    run_on_workers all start "$@"
    ;;
  logs) run_on_workers "${WORKER:-0}" logs ;;
  stop) run_on_workers all stop ;;
esac
