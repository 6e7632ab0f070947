#!/usr/bin/env bash
# Runs one electramed command on TPU slices of a GKE cluster, as the JobSet of launch/gke_jobset.yaml.
#
#   launch/gke.sh [--dry-run] run COMMAND...   run electramed COMMAND on every host; restart after each exit 42
#   launch/gke.sh [--dry-run] logs             follow the log of host 0; HOST=3 or HOST=all: of others
#   launch/gke.sh [--dry-run] status           print the state of the JobSet and its pods
#   launch/gke.sh [--dry-run] delete           SIGTERM: all hosts save and stop; the same run command resumes
#
# Settings
#   NAME              name of the JobSet
#   IMAGE             run: image built from launch/Dockerfile
#   TOPOLOGY          run: topology as in electramed compile, e.g. v5e:4x4, v4:2x2x4, v5p:2x2x4, v6e:4x4
#   SLICES            run: number of slices that train together (default 1)
#   CHIPS_PER_HOST    run: chips of a host (default 4, or all of a smaller slice); 8 for v5e:2x4 and v6e:2x4 on one host
#   SPOT=1            run: use spot nodes: cheaper, but may be preempted at any time (default 0)
#   NAMESPACE         Kubernetes namespace (default: default)
#   SERVICE_ACCOUNT   run: Kubernetes service account that reads and writes the bucket (default: default)
#   MAX_RESTARTS      run: maximum restarts of a killed job (default 20); exit 42 and lost nodes do not count
#   GRACE_SECONDS     run: seconds from SIGTERM to SIGKILL (default 300)
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
  run | logs | status | delete) shift ;;
  *) fail "give one of run, logs, status, delete, not '$subcommand'" ;;
esac
(: "${NAME:?set NAME, the name of the JobSet, e.g. NAME=electra}") || exit 2
NAMESPACE="${NAMESPACE:-default}"
# Pods are named NAME-slice-0-0-abcde; the limit is 63 characters.
[[ "$NAME" =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
  fail "NAME=$NAME is not a valid Kubernetes name; wanted at most 40 lower-case letters, digits and hyphens"

# derive: sets ACCELERATOR, TOPOLOGY_SHAPE, CHIPS_PER_HOST and HOSTS from TOPOLOGY.
derive() {
  local kind="${TOPOLOGY%%:*}" chips
  TOPOLOGY_SHAPE="${TOPOLOGY#*:}"
  # https://cloud.google.com/kubernetes-engine/docs/concepts/tpus
  case "$kind" in
    v4) ACCELERATOR=tpu-v4-podslice ;;
    v5e) ACCELERATOR=tpu-v5-lite-podslice ;;
    v5p) ACCELERATOR=tpu-v5p-slice ;;
    v6e) ACCELERATOR=tpu-v6e-slice ;;
    *) fail "TOPOLOGY=$TOPOLOGY: unknown generation '$kind'; wanted v4, v5e, v5p or v6e" ;;
  esac
  [[ "$TOPOLOGY_SHAPE" =~ ^[1-9][0-9]{0,2}(x[1-9][0-9]{0,2}){1,2}$ ]] ||
    fail "TOPOLOGY=$TOPOLOGY has no shape; wanted for example v5e:4x4 or v4:2x2x4"
  chips=$((${TOPOLOGY_SHAPE//x/*}))
  CHIPS_PER_HOST="${CHIPS_PER_HOST:-$((chips < 4 ? chips : 4))}"
  require_integers CHIPS_PER_HOST SLICES MAX_RESTARTS GRACE_SECONDS
  ((CHIPS_PER_HOST > 0 && chips % CHIPS_PER_HOST == 0)) ||
    fail "the $chips chips of TOPOLOGY=$TOPOLOGY do not divide into hosts of CHIPS_PER_HOST=$CHIPS_PER_HOST"
  HOSTS=$((chips / CHIPS_PER_HOST))
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
  if ! is_enabled SPOT; then text="$(grep -v '# only with SPOT=1$' <<<"$text")"; fi
  for name in "${settings[@]}"; do
    text="${text//"\${$name}"/"${!name}"}"
  done
  echo "$text"
}

run_command() {
  (: "${IMAGE:?set IMAGE, built from launch/Dockerfile, e.g. IMAGE=us-docker.pkg.dev/my-project/electra/electramed:1}" \
    "${TOPOLOGY:?set TOPOLOGY, e.g. TOPOLOGY=v5e:4x4}") || exit 2
  (($#)) || fail "give an electramed command, e.g. pretrain --config=configs/pretrain_base.py --workdir=gs://bucket/run"
  SLICES="${SLICES:-1}"
  MAX_RESTARTS="${MAX_RESTARTS:-20}"
  GRACE_SECONDS="${GRACE_SECONDS:-300}"
  SERVICE_ACCOUNT="${SERVICE_ACCOUNT:-default}"
  derive
  is_enabled SPOT || true # only to check its value
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
  status)
    run kubectl get jobset "$NAME" "--namespace=$NAMESPACE"
    run kubectl get pods "--namespace=$NAMESPACE" "--selector=$pods" --output=wide
    ;;
  delete) run kubectl delete jobset "$NAME" "--namespace=$NAMESPACE" ;;
esac
