# shellcheck shell=bash disable=SC2034,SC2153,SC2154
# Sourced by tpu_vm.sh: a slice of v5p, v6e or tpu7x as a managed instance group of Compute Engine, Google's current API.
# A workload policy connects the machines to a slice; it, the template and the group are named NAME.

REGION="${ZONE%-*}"
refused="Compute Engine refused the request; see the errors of: $(shell_quote gcloud compute instance-groups managed list-errors "$NAME" "${where[@]}")"

request_slices() {
  local template=("--project=$PROJECT" "--machine-type=$MACHINE-$((CHIPS < 4 ? CHIPS : 4))t")
  local group=("--size=$HOSTS" "--template=$NAME" --default-action-on-vm-failure=do-nothing)
  template+=("--image-family=$IMAGE_FAMILY" --image-project=ubuntu-os-accelerator-images --boot-disk-size=100GB
    --boot-disk-type=hyperdisk-balanced "--network-interface=network=default,nic-type=GVNIC"
    --maintenance-policy=TERMINATE --scopes=cloud-platform)
  case "$capacity" in
    spot) template+=(--provisioning-model=SPOT --instance-termination-action=DELETE) ;;
    flex-start)
      template+=(--provisioning-model=FLEX_START "--max-run-duration=${FLEX_START_HOURS}h"
        --instance-termination-action=DELETE --reservation-affinity=none)
      group[0]=--size=0 # all machines at once: the group waits for them and is resized when it exists
      group+=(--target-size-policy-mode=bulk)
      ;;
  esac
  if [[ -n "${SERVICE_ACCOUNT:-}" ]]; then template+=("--service-account=$SERVICE_ACCOUNT"); fi
  if ((HOSTS > 1)); then
    run gcloud compute resource-policies create workload-policy "$NAME" "--project=$PROJECT" "--region=$REGION" \
      --type=HIGH_THROUGHPUT "--accelerator-topology=${TOPOLOGY#*:}" || return
    group+=("--workload-policy=projects/$PROJECT/regions/$REGION/resourcePolicies/$NAME")
  fi
  run gcloud compute instance-templates create "$NAME" "${template[@]}" "$@" || return
  run gcloud compute instance-groups managed create "$NAME" "${where[@]}" "${group[@]}" || return
  if [[ "$capacity" == flex-start ]]; then
    run gcloud compute instance-groups managed resize "$NAME" "${where[@]}" "--size=$HOSTS"
  fi
}

# delete_slices: deletes the group, then template and policy; exits with the code of the first.
delete_slices() {
  local code=0
  run gcloud compute instance-groups managed delete "$NAME" "${where[@]}" --quiet || code=$?
  run gcloud compute instance-templates delete "$NAME" "--project=$PROJECT" --quiet || true
  if ((HOSTS > 1)); then
    run gcloud compute resource-policies delete "$NAME" "--project=$PROJECT" "--region=$REGION" --quiet || true
  fi
  return "$code"
}

# group_name, instances FIELD: print the name of the group, and a field of each of its machines; nothing if there are none.
group_name() {
  run gcloud compute instance-groups managed list "--project=$PROJECT" "--filter=name=$NAME AND zone:$ZONE" '--format=value(name)'
}
instances() {
  run gcloud compute instance-groups managed list-instances "$NAME" "${where[@]}" "--format=value($1)"
}

print_state() {
  if $dry_run; then
    group_name
    instances instanceStatus
  else
    echo "group: $(group_name)"
    echo "slice: $(instances instanceStatus | paste -sd, -)"
  fi
}

# slice_state: prints absent, ready, gone (stopped; to be deleted), or "waiting (state of Google)".
slice_state() {
  local name states
  name="$(group_name)" || return
  if [[ -z "$name" ]]; then
    echo absent
    return
  fi
  states="$(instances instanceStatus)" || return
  if grep -qxE 'STOPPED|TERMINATED|SUSPENDED' <<<"$states"; then
    echo gone
  elif (($(grep -cx RUNNING <<<"$states") == HOSTS)); then
    echo ready
  else
    echo "waiting ($(paste -sd, - <<<"${states:-no machine yet}"))"
  fi
}

# on_machines WORKERS FUNCTION WORD...: runs FUNCTION MACHINE WORD... for all machines at once, or for one by its place in
# alphabetical order; exits with the first exit code that is not 0.
on_machines() {
  local names="$NAME-MACHINE" name jobs=() job code=0 ended
  if $dry_run; then instances "instance.basename()"; else names="$(instances "instance.basename()" | sort)" || return; fi
  if [[ "$1" != all ]] && ! $dry_run; then names="$(sed -n "$(($1 + 1))p" <<<"$names")"; fi
  [[ -n "$names" ]] || fail "group $NAME has no machine $1"
  if [[ "$names" != *$'\n'* ]]; then
    "$2" "$names" "${@:3}"
    return
  fi
  for name in $names; do
    "$2" "$name" "${@:3}" &
    jobs+=($!)
  done
  trap 'kill "${jobs[@]}" 2>/dev/null || true' INT TERM # background jobs of a script ignore Ctrl-C
  for job in "${jobs[@]}"; do
    ended=0
    wait "$job" || ended=$?
    if ((code == 0)); then code=$ended; fi
  done
  trap - INT TERM
  return "$code"
}

ssh_machine() { run gcloud compute ssh "$1" "${where[@]}" "--command=$2"; }
copy_to_machine() { run gcloud compute scp "$2" "$1:$3" "${where[@]}"; }
save_output() { if $dry_run; then ssh_machine "$1" "$3"; else ssh_machine "$1" "$3" >"$2/$1.log"; fi; }

ssh_workers() { on_machines "$1" ssh_machine "$2"; }
copy_to_workers() { on_machines all copy_to_machine "$1" "$2"; }

# collect_output FOLDER COMMAND: writes the output of a shell command on each machine to FOLDER/MACHINE.log.
collect_output() {
  run mkdir -p "$1"
  on_machines all save_output "$1" "$2"
}
