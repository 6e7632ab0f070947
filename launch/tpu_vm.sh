#!/usr/bin/env bash
# One Cloud TPU slice, from asking for it to giving it back. launch/README.md walks through it.
#
#   launch/tpu_vm.sh [--dry-run] create [OPTION...]   ask for the slice: a queued resource; options go to gcloud
#   launch/tpu_vm.sh [--dry-run] wait                 until it's there
#   launch/tpu_vm.sh [--dry-run] setup                install this checkout on all workers
#   launch/tpu_vm.sh [--dry-run] run COMMAND...       electramed COMMAND in the background, again after each exit 42
#   launch/tpu_vm.sh [--dry-run] logs                 follow worker 0, or WORKER=3, or WORKER=all
#   launch/tpu_vm.sh [--dry-run] status               of the queue and of each worker
#   launch/tpu_vm.sh [--dry-run] stop                 SIGTERM: all workers save the same step and stop
#   launch/tpu_vm.sh [--dry-run] delete               give the slice back
#   launch/tpu_vm.sh [--dry-run] babysit COMMAND...   all of it, on one slice after the other, until the command is done
#
# Settings
#   PROJECT, ZONE, NAME   where, and what the slice is called
#   ACCELERATOR_TYPE      for create and babysit: v5litepod-16, v4-32, v5p-32, v6e-16, ...
#   SPOT=1                for create and babysit: cheaper, and may be taken away at any time
#   SERVICE_ACCOUNT       for create and babysit: who reads and writes the bucket (default: Compute Engine's account)
#   RUNTIME_VERSION       for create and babysit: another image than jax's for this accelerator
#   SOURCE                for setup: git+https://..., a wheel's URL or gs://.../file.whl instead of this checkout
#   EXTRAS, PYTHON        for setup: default tpu,gcs and 3.12
#   RESTARTS              for babysit: how often a command that was killed is started again on one slice (default 20)
#   DELETE_WHEN_DONE=1    for babysit: give the slice back at the end, whatever the end is
#   POLL                  for wait and babysit: seconds between two looks (default 60)
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
  "${ZONE:?set ZONE, one that has the accelerator, e.g. ZONE=us-west4-a}" \
  "${NAME:?set NAME, what to call the slice, e.g. NAME=electra}") || exit 2
RESTARTS="${RESTARTS:-20}"
POLL="${POLL:-60}"
whole_numbers RESTARTS POLL
where=("--project=$PROJECT" "--zone=$ZONE")
worker=electramed/source/launch/tpu_worker.sh
[[ "$NAME" =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] ||
  fail "NAME=$NAME is not a name for Google Cloud: lower-case letters, digits and hyphens"
reason="$(quoted gcloud compute tpus queued-resources describe "$NAME" "${where[@]}")"
refused="the request was refused; ask for the reason with: $reason"

say() { echo "$(date +%FT%T) $NAME: $1" >&2; }

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
        fail "ACCELERATOR_TYPE=$ACCELERATOR_TYPE is not $known; mend it, or set RUNTIME_VERSION too"
      ;;
  esac
  runtime="${RUNTIME_VERSION:-$runtime}"
}

# on WORKERS COMMAND: a line of shell on these workers; gcloud exits with the first worker's code that isn't 0.
on() {
  run gcloud compute tpus tpu-vm ssh "$NAME" "${where[@]}" "--worker=$1" "--command=$2"
}

# ask WORKERS WORD...: has them do a thing that tpu_worker.sh knows.
ask() {
  on "$1" "test -x $worker || { echo 'nothing is installed here; run launch/tpu_vm.sh setup' >&2; exit 2; }; \
$(quoted "$worker" "${@:2}")"
}

create() {
  needs_accelerator
  local options=("--node-id=$NAME" "--accelerator-type=$ACCELERATOR_TYPE" "--runtime-version=$runtime")
  if switched_on SPOT; then options+=(--spot); fi
  if [[ -n "${SERVICE_ACCOUNT:-}" ]]; then options+=("--service-account=$SERVICE_ACCOUNT"); fi
  run gcloud compute tpus queued-resources create "$NAME" "${where[@]}" "${options[@]}" "$@"
}

delete() {
  run gcloud compute tpus queued-resources delete "$NAME" "${where[@]}" --force --quiet
}

# queue_state, node_state: Google's word for the state of the queued resource and of the TPU VM; empty where none is.
queue_state() {
  run gcloud compute tpus queued-resources list "${where[@]}" "--filter=name ~ /$NAME\$" '--format=value(state.state)'
}
node_state() {
  run gcloud compute tpus tpu-vm list "${where[@]}" "--filter=name ~ /$NAME\$" '--format=value(state)'
}

# slice_state: absent, ready, gone (taken away; to be deleted), refused, or "waiting (Google's word)".
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

wait_for_it() {
  if $dry_run; then
    queue_state
    node_state
    return
  fi
  local state before=
  while state="$(slice_state)" || exit; [[ "$state" != ready ]]; do
    case "$state" in
      absent) fail "there is no queued resource $NAME; ask for it with launch/tpu_vm.sh create" ;;
      gone) fail "the slice was taken away; launch/tpu_vm.sh delete, then create" ;;
      refused) fail "$refused" ;;
    esac
    if [[ "$state" != "$before" ]]; then say "$state"; fi
    before="$state"
    sleep "$POLL"
  done
  say ready
}

setup() {
  local contents=(configs launch) archive=/tmp/electramed.tar.gz
  if [[ -z "${SOURCE:-}" ]]; then contents+=(electramed_jax setup.py pyproject.toml README.md LICENSE); fi
  if ! $dry_run; then archive="$(mktemp -d)/electramed.tar.gz"; fi
  local unpack install
  unpack="set -e; if [ -x $worker ] && [ \"\$($worker state)\" = running ]; \
then echo 'a command runs here; launch/tpu_vm.sh stop ends it' >&2; exit 2; fi; \
rm -rf electramed/source; mkdir -p electramed/source; tar -xzf electramed.tar.gz -C electramed/source"
  install="$(quoted env "EXTRAS=${EXTRAS:-tpu,gcs}" "PYTHON=${PYTHON:-3.12}" "$worker" install ${SOURCE:+"$SOURCE"})"
  run tar -czf "$archive" -C "$here/.." --exclude=__pycache__ "${contents[@]}" || return
  run gcloud compute tpus tpu-vm scp "$archive" "$NAME:electramed.tar.gz" "${where[@]}" --worker=all || return
  on all "$unpack; $install" || return
  if ! $dry_run; then rm -r "$(dirname "$archive")"; fi
}

# worker_states: for each worker a line: "bare" where nothing is installed, else what `tpu_worker.sh state` says.
worker_states() {
  on all "if [ -x electramed/venv/bin/electramed ]; then $worker state; else echo bare; fi"
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

# next_step STATES: of the workers; prints setup, start, watch or "end CODE".
next_step() {
  if grep -qx bare <<<"$1"; then
    echo setup
  elif grep -qx running <<<"$1"; then
    echo watch # where one has ended badly, the others soon do
  elif grep -qx stopped <<<"$1"; then
    echo end 42
  elif grep -qxE 'idle|lost' <<<"$1"; then
    echo start
  else
    local codes code
    codes="$(sed -n 's/^ended //p' <<<"$1" | sort -nu)"
    # 42 and 75 are "start me again"; from 128 on it's a signal: killed, or ended by jax. Others are mistakes.
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
  switched_on DELETE_WHEN_DONE || true # or a mistake, said before anything is asked for
  if $dry_run; then
    # shellcheck disable=SC2119 # the words are the command's, not create's
    create
    wait_for_it
    setup
    ask all start "$@"
    worker_states
    return
  fi
  local state states step before='' restarts=0 was_ready=false looked=false
  while :; do
    if ! state="$(slice_state)"; then
      $was_ready || fail "gcloud can't tell the state of the slice; see its message above"
      state="unknown: gcloud gave no answer; asking again"
    fi
    if [[ "$state" != "$before" ]]; then say "$state"; fi
    before="$state"
    case "$state" in
      absent | gone | refused)
        # Without a slice nothing is lost by asking again; only a first request that fails is a mistake.
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
          say "not all workers answer; asking again"
        fi
        # What ended before this babysitter came is started again: a run that is done says so at once.
        if ! $looked && [[ "$step" == end* ]]; then step=start; fi
        looked=true
        case "$step" in
          setup)
            say "installing"
            if setup; then continue; else say "not installed; trying again"; fi
            ;;
          start)
            ((restarts++ <= RESTARTS)) || finish 1 "ended again after $RESTARTS restart(s) on this slice"
            say "starting: $(quoted electramed "$@")"
            ask all start "$@" || say "not started; trying again"
            ;;
          end*) finish "${step#end }" "ended with exit code ${step#end }" ;;
        esac
        ;;
    esac
    sleep "$POLL"
  done
}

# finish CODE MESSAGE
finish() {
  say "$2"
  if switched_on DELETE_WHEN_DONE; then
    delete || true
  else
    say "the slice still costs; give it back with launch/tpu_vm.sh delete"
  fi
  exit "$1"
}

case "$subcommand" in
  create) create "$@" ;;
  babysit) babysit "$@" ;;
  setup | status | delete) "$subcommand" ;;
  wait) wait_for_it ;;
  run)
    needs_command "$@"
    ask all start "$@"
    ;;
  logs) ask "${WORKER:-0}" logs ;;
  stop) ask all stop ;;
esac
