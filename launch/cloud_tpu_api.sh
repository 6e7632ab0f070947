# shellcheck shell=bash disable=SC2034,SC2153,SC2154
# Sourced by tpu_vm.sh: slices of v4, v5e, v5p and v6e as queued resources of the Cloud TPU API (tpu.googleapis.com, v2),
# which Google calls the legacy API. It has every generation before tpu7x, a queue, and several slices in one request.

reason="$(shell_quote gcloud compute tpus queued-resources describe "$NAME" "${where[@]}")"
refused="the request was refused; print the reason with: $reason"

request_slices() {
  local track=() options=("--accelerator-type=$ACCELERATOR_TYPE" "--runtime-version=${RUNTIME_VERSION:-$RUNTIME}")
  if ((SLICES > 1)); then
    options=("--node-count=$SLICES" "--node-prefix=$NAME" "${options[@]}")
  else
    options=("--node-id=$NAME" "${options[@]}")
  fi
  case "$capacity" in
    spot) options+=(--spot) ;;
    flex-start)
      track=(alpha) # the only track with flex-start
      options+=(--provisioning-model=flex-start "--max-run-duration=${FLEX_START_HOURS}h")
      ;;
  esac
  if [[ -n "${SERVICE_ACCOUNT:-}" ]]; then options+=("--service-account=$SERVICE_ACCOUNT"); fi
  run gcloud "${track[@]}" compute tpus queued-resources create "$NAME" "${where[@]}" "${options[@]}" "$@"
}

delete_slices() {
  run gcloud compute tpus queued-resources delete "$NAME" "${where[@]}" --force --quiet
}

# queue_state, node_states: print Google's state of the queued resource and of its TPU VMs; nothing if there are none.
queue_state() {
  run gcloud compute tpus queued-resources list "${where[@]}" "--filter=name ~ /$NAME\$" '--format=value(state.state)'
}
node_states() {
  run gcloud compute tpus tpu-vm list "${where[@]}" "--filter=name ~ /$NAME(-[0-9]+)?\$" '--format=value(state)'
}

print_state() {
  if $dry_run; then
    queue_state
    node_states
  else
    echo "queue: $(queue_state)"
    echo "slice: $(node_states | paste -sd, -)"
  fi
}

# slice_state: prints absent, ready, gone (preempted or its time is over; to be deleted), refused, or "waiting (state)".
slice_state() {
  local queue nodes
  queue="$(queue_state)" || return
  case "$queue" in
    '') echo absent ;;
    SUSPENDED) echo gone ;;
    FAILED) echo refused ;;
    ACTIVE)
      nodes="$(node_states)" || return
      if [[ -z "$nodes" ]] || grep -qxE 'PREEMPTED|TERMINATED' <<<"$nodes"; then
        echo gone
      elif grep -qvx READY <<<"$nodes"; then
        echo "waiting ($(paste -sd, - <<<"$nodes"))"
      else
        echo ready
      fi
      ;;
    *) echo "waiting ($queue)" ;;
  esac
}

# ssh_workers WORKERS COMMAND: runs a shell command on all workers, or on one of slice SLICE; exits with the first exit
# code that is not 0.
ssh_workers() {
  local node="${SLICE:-0}"
  if [[ "$1" == all ]]; then node=all; fi
  run gcloud compute tpus queued-resources ssh "$NAME" "${where[@]}" "--node=$node" "--worker=$1" "--command=$2"
}

copy_to_workers() {
  run gcloud compute tpus queued-resources scp "$1" "$NAME:$2" "${where[@]}" --node=all --worker=all
}

# collect_output FOLDER COMMAND: writes the output of a shell command on each worker to FOLDER/slice-I/WORKER.log.
collect_output() {
  local slice
  for ((slice = 0; slice < SLICES; slice++)); do
    run mkdir -p "$1/slice-$slice"
    run gcloud compute tpus queued-resources ssh "$NAME" "${where[@]}" "--node=$slice" --worker=all "--command=$2" \
      "--output-directory=$1/slice-$slice"
  done
}
