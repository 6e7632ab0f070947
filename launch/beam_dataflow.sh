#!/usr/bin/env bash
# The corpus on many machines: `electramed prepare` or `electramed pack` as an Apache Beam pipeline on Google Cloud Dataflow.
#
#   launch/beam_dataflow.sh [--dry-run] prepare --input "gs://my-bucket/pubmed/*.xml.gz" --output gs://my-bucket/documents
#   launch/beam_dataflow.sh [--dry-run] pack --documents gs://my-bucket/documents --vocab vocab.txt --output gs://my-bucket/packed
#
# The result is that of the same command without the launcher, byte for byte. It waits until the job has ended; where it is
# interrupted, the job goes on. The same command given again, once the job is done, completes the folder; before that, it
# starts the job a second time. Needs electramed_jax[dataflow] here, with a Python that Beam has workers for.
#
# Settings
#   PROJECT, REGION    where, e.g. PROJECT=my-project REGION=us-west4
#   BUCKET             for Dataflow's own files, under gs://BUCKET/dataflow; best in the same region
#   NAME               of the job (default: electramed-prepare, electramed-pack)
#   MAX_WORKERS        machines, at most (default 32); Dataflow chooses how many, by the work there is
#   MACHINE_TYPE       of each (default n2-standard-8); a process a core, 4 GB for each is enough
#   DISK_GB            of each (default 50)
#   SERVICE_ACCOUNT    who the workers are (default: Compute Engine's account); it reads and writes the buckets
#   IMAGE              with everything installed, for workers that start at once, or have no way to PyPI: Beam's own image for
#                      this version of Beam and Python, with electramed_jax[gcs,dedup] on top (default: this checkout is
#                      installed on each worker as it starts)
#   BEAM_OPTIONS       any others, as in a shell, e.g. BEAM_OPTIONS="--subnetwork=regions/us-west4/subnetworks/a --no_use_public_ips"
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=launch/functions.sh
source "$here/functions.sh"
if [[ "${1:-}" == --dry-run ]]; then
  dry_run=true
  shift
fi
(: "${PROJECT:?set PROJECT, the Google Cloud project, e.g. PROJECT=my-project}" \
  "${REGION:?set REGION, that of the bucket, e.g. REGION=us-west4}" \
  "${BUCKET:?set BUCKET, for Dataflow\'s own files, e.g. BUCKET=my-bucket}") || exit 2
case "${1:-}" in
  prepare | pack) ;;
  '') fail "give an electramed command, e.g. prepare --input='gs://my-bucket/*.xml.gz' --output=gs://my-bucket/documents" ;;
  *) fail "$1 is nothing that Dataflow does; give prepare or pack" ;;
esac
for word in "$@"; do
  case "$word" in
    --runner | --runner=* | --beam_options | --beam_options=*)
      fail "${word%%=*} is this launcher's to give; set BEAM_OPTIONS for further options"
      ;;
  esac
done
NAME="${NAME:-electramed-$1}"
[[ "$NAME" =~ ^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$ ]] ||
  fail "NAME=$NAME is not a name for a job: at most 63 lower-case letters, digits and hyphens"
MAX_WORKERS="${MAX_WORKERS:-32}"
DISK_GB="${DISK_GB:-50}"
whole_numbers MAX_WORKERS DISK_GB

options=(
  "--project=$PROJECT"
  "--region=$REGION"
  "--temp_location=gs://${BUCKET#gs://}/dataflow"
  "--job_name=$NAME"
  "--max_num_workers=$MAX_WORKERS"
  "--worker_machine_type=${MACHINE_TYPE:-n2-standard-8}"
  "--disk_size_gb=$DISK_GB"
  # Python computes with one core a process, whatever its threads; each would hold a part or a window in memory.
  "--number_of_worker_harness_threads=1"
)
if [[ -n "${SERVICE_ACCOUNT:-}" ]]; then options+=("--service_account_email=$SERVICE_ACCOUNT"); fi
if [[ -n "${IMAGE:-}" ]]; then
  options+=("--sdk_container_image=$IMAGE" --sdk_location=container)
else
  # Of the checkout Beam installs no extras: those that workers need are requirements, which they fetch themselves.
  options+=("--setup_file=$(dirname "$here")/setup.py" "--requirements_file=$here/beam_requirements.txt")
  options+=(--requirements_cache=skip)
fi
run electramed "$@" --runner=DataflowRunner "--beam_options=$(quoted "${options[@]}")${BEAM_OPTIONS:+ $BEAM_OPTIONS}"
