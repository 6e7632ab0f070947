#!/usr/bin/env bash
# Runs one electramed command on TPU slices of a GKE cluster, as the JobSet of launch/gke_jobset.yaml.
#
#   launch/gke.sh [--dry-run] create-pools [OPTION...]   print the cost and create a node pool for each slice
#   launch/gke.sh [--dry-run] run COMMAND...             run electramed COMMAND on every host; restart after each exit 42
#   launch/gke.sh [--dry-run] logs                       follow the log of host 0; HOST=3 or HOST=all: of others
#   launch/gke.sh [--dry-run] collect                    copy the logs of all hosts to LOGS
#   launch/gke.sh [--dry-run] status                     print the state of the JobSet and its pods
#   launch/gke.sh [--dry-run] delete                     SIGTERM: all hosts save and stop; the same run command resumes
#   launch/gke.sh [--dry-run] delete-pools               delete the node pools, which ends their cost
#
# Settings
#   NAME                  name of the JobSet; node pools are NAME-0, NAME-1, ...
#   TOPOLOGY              create-pools, run: topology as in electramed compile: v5e:4x4, v4:2x2x4, v6e:4x4, tpu7x:2x2x4
#   SLICES                number of slices that train together (default 1)
#   CHIPS_PER_HOST        create-pools, run: chips of a host (default 4, or all of a smaller slice); 8 for v5e:2x4 and
#                         v6e:2x4 on one host
#   SPOT=1                create-pools, run: spot nodes: cheaper, but may be preempted at any time (default 0)
#   FLEX_START_HOURS      create-pools, run: nodes for so many hours, at most 168, that start when there is room
#   PRICE_PER_CHIP_HOUR   create-pools: USD, for the line with the cost
#   PROJECT, CLUSTER      create-pools, delete-pools: Google Cloud project and cluster
#   REGION, ZONE          create-pools, delete-pools: location of the cluster; create-pools: zone of the nodes
#   IMAGE                 run: image built from launch/Dockerfile
#   NAMESPACE             Kubernetes namespace (default: default)
#   SERVICE_ACCOUNT       run: Kubernetes service account that reads and writes the bucket (default: default)
#   MAX_RESTARTS          run: maximum restarts of a killed job (default 20); exit 42 and lost nodes do not count
#   GRACE_SECONDS         run: seconds from SIGTERM to SIGKILL (default 300)
#   LOGS                  collect: folder (default logs-NAME)
# shellcheck disable=SC2034 # `manifest` reads the settings by name
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
  create-pools | run | logs | collect | status | delete | delete-pools) shift ;;
  *) fail "give one of create-pools, run, logs, collect, status, delete, delete-pools, not '$subcommand'" ;;
esac
(: "${NAME:?set NAME, the name of the JobSet, e.g. NAME=electra}") || exit 2
NAMESPACE="${NAMESPACE:-default}"
# Pods are named NAME-slice-0-0-abcde; the limit is 63 characters.
[[ "$NAME" =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
  fail "NAME=$NAME is not a valid Kubernetes name; wanted at most 40 lower-case letters, digits and hyphens"

# derive: sets what the manifest and the node pools need from TOPOLOGY.
derive() {
  (: "${TOPOLOGY:?set TOPOLOGY, e.g. TOPOLOGY=v5e:4x4}") || exit 2
  read_slice
  check_capacity
  ACCELERATOR="$GKE_ACCELERATOR"
  TOPOLOGY_SHAPE="${TOPOLOGY#*:}"
  CHIPS_PER_HOST="${CHIPS_PER_HOST:-$((CHIPS / HOSTS))}"
  require_integers CHIPS_PER_HOST
  if ((CHIPS_PER_HOST != CHIPS / HOSTS)); then
    [[ "$CHIPS_PER_HOST $TOPOLOGY" =~ ^8\ v[56]e:2x4$ ]] ||
      fail "CHIPS_PER_HOST=$CHIPS_PER_HOST: a host of $TOPOLOGY has $((CHIPS / HOSTS)) chips; 8 only with v5e:2x4 and v6e:2x4"
    HOSTS=1
  fi
  ((SLICES == 1 || HOSTS > 1)) || fail "SLICES=$SLICES: GKE connects slices of several hosts; $TOPOLOGY has one"
}

# create_pools OPTION...: creates one node pool for each slice. Nodes of a slice are connected by a topology, or on tpu7x
# by a placement policy of their own.
create_pools() {
  needs_cluster
  (: "${ZONE:?set ZONE, the zone of the nodes, e.g. ZONE=us-west4-a}") || exit 2
  derive
  local slice pool options=("--node-locations=$ZONE" "--machine-type=$MACHINE-${CHIPS_PER_HOST}t")
  case "$capacity" in
    spot) options+=("--num-nodes=$HOSTS" --spot) ;;
    flex-start)
      options+=(--flex-start "--max-run-duration=${FLEX_START_HOURS}h" --num-nodes=0 --enable-autoscaling
        "--total-max-nodes=$HOSTS" --reservation-affinity=none --no-enable-autorepair)
      ;;
    *) options+=("--num-nodes=$HOSTS") ;;
  esac
  print_cost
  for ((slice = 0; slice < SLICES; slice++)); do
    pool="$NAME-$slice"
    if ((HOSTS == 1)); then
      run gcloud container node-pools create "$pool" "${cluster[@]}" "${options[@]}" "$@" || return
    elif [[ "$PLACEMENT" == topology ]]; then
      run gcloud container node-pools create "$pool" "${cluster[@]}" "${options[@]}" "--tpu-topology=$TOPOLOGY_SHAPE" \
        "$@" || return
    else
      run gcloud compute resource-policies create workload-policy "$pool" "--project=$PROJECT" "--region=$REGION" \
        --type=HIGH_THROUGHPUT "--accelerator-topology=$TOPOLOGY_SHAPE" || return
      run gcloud container node-pools create "$pool" "${cluster[@]}" "${options[@]}" "--placement-policy=$pool" "$@" ||
        return
    fi
  done
}

delete_pools() {
  needs_cluster
  derive
  local slice
  for ((slice = 0; slice < SLICES; slice++)); do
    run gcloud container node-pools delete "$NAME-$slice" "${cluster[@]}" --quiet || return
    if ((HOSTS > 1)) && [[ "$PLACEMENT" == policy ]]; then
      run gcloud compute resource-policies delete "$NAME-$slice" "--project=$PROJECT" "--region=$REGION" --quiet || return
    fi
  done
}

needs_cluster() {
  (: "${PROJECT:?set PROJECT, the Google Cloud project, e.g. PROJECT=my-project}" \
    "${CLUSTER:?set CLUSTER, the GKE cluster, e.g. CLUSTER=electra}" \
    "${REGION:?set REGION, the location of the cluster, e.g. REGION=us-west4}") || exit 2
  cluster=("--project=$PROJECT" "--cluster=$CLUSTER" "--location=$REGION")
}

# json WORD...: prints a JSON list of the words, escaped so that Kubernetes passes them unchanged.
json() {
  local word list=()
  for word in "$@"; do
    # Kubernetes replaces $(NAME) by a variable and $$ by $.
    word="${word//'$'/'$$'}"
    word="${word//\\/\\\\}"
    word="${word//\"/\\\"}"
    word="${word//$'\n'/\\n}"
    word="${word//$'\t'/\\t}"
    [[ "$word" != *[[:cntrl:]]* ]] || fail "an argument contains a control character: ${word@Q}; remove it"
    list+=("\"$word\"")
  done
  local IFS=,
  echo "[${list[*]}]"
}

# manifest: prints gke_jobset.yaml with the settings filled in. ARGUMENTS are last, so that nothing in them is replaced.
manifest() {
  local text name settings=(NAME NAMESPACE MAX_RESTARTS SLICES HOSTS GRACE_SECONDS SERVICE_ACCOUNT ACCELERATOR)
  settings+=(TOPOLOGY_SHAPE IMAGE CHIPS_PER_HOST ARGUMENTS)
  text="$(grep -v '^#' "$here/gke_jobset.yaml")"
  if [[ "$capacity" != spot ]]; then text="$(grep -v '# only with SPOT=1$' <<<"$text")"; fi
  if [[ "$capacity" != flex-start ]]; then text="$(grep -v '# only with FLEX_START_HOURS$' <<<"$text")"; fi
  for name in "${settings[@]}"; do
    text="${text//"\${$name}"/"${!name}"}"
  done
  echo "$text"
}

run_command() {
  (: "${IMAGE:?set IMAGE, built from launch/Dockerfile, e.g. IMAGE=us-docker.pkg.dev/my-project/electra/electramed:1}") ||
    exit 2
  (($#)) || fail "give an electramed command, e.g. pretrain --config=configs/pretrain_base.py --workdir=gs://bucket/run"
  MAX_RESTARTS="${MAX_RESTARTS:-20}"
  GRACE_SECONDS="${GRACE_SECONDS:-300}"
  SERVICE_ACCOUNT="${SERVICE_ACCOUNT:-default}"
  require_integers MAX_RESTARTS GRACE_SECONDS
  derive
  local word='^[A-Za-z0-9][A-Za-z0-9._/:@-]*$' name
  for name in IMAGE NAMESPACE SERVICE_ACCOUNT; do
    [[ "${!name}" =~ $word ]] || fail "$name=${!name} contains an invalid character; wanted A-Z, a-z, 0-9 or ._/:@-"
  done
  ARGUMENTS="$(json "$@")" || exit
  if $dry_run; then
    echo "kubectl create --filename=- <<'END'"
    manifest
    echo END
  else
    manifest | kubectl create --filename=-
  fi
}

# collect: writes the whole log of each pod to a file of its own.
collect() {
  local folder="${LOGS:-logs-$NAME}" found pod
  run mkdir -p "$folder"
  found="$(run kubectl get pods "--namespace=$NAMESPACE" "--selector=$pods" --output=name)" || return
  if $dry_run; then
    echo "$found"
    found=pod/NAME-OF-A-POD
  fi
  for pod in $found; do
    if $dry_run; then
      run kubectl logs "--namespace=$NAMESPACE" "$pod" --timestamps
    else
      kubectl logs "--namespace=$NAMESPACE" "$pod" --timestamps >"$folder/${pod#pod/}.log" || return
    fi
  done
}

# Labels set by JobSet and the job controller.
pods="jobset.sigs.k8s.io/jobset-name=$NAME"
case "$subcommand" in
  run) run_command "$@" ;;
  logs)
    HOST="${HOST:-0}"
    if [[ "$HOST" == all ]]; then
      run kubectl logs "--namespace=$NAMESPACE" "--selector=$pods" --follow --tail=100 --prefix --max-log-requests=1024
    else
      require_integers HOST
      run kubectl logs "--namespace=$NAMESPACE" \
        "--selector=$pods,jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=$HOST" \
        --follow --tail=100
    fi
    ;;
  collect) collect ;;
  create-pools) create_pools "$@" ;;
  delete-pools) delete_pools ;;
  status)
    run kubectl get jobset "$NAME" "--namespace=$NAMESPACE"
    run kubectl get pods "--namespace=$NAMESPACE" "--selector=$pods" --output=wide
    ;;
  delete) run kubectl delete jobset "$NAME" "--namespace=$NAMESPACE" ;;
esac
