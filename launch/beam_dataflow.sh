#!/usr/bin/env bash
# Runs `electramed prepare` or `electramed pack` as an Apache Beam pipeline on Google Cloud Dataflow.
#
#   launch/beam_dataflow.sh [--dry-run] prepare --input "gs://my-bucket/pubmed/*.xml.gz" --output gs://my-bucket/documents
#   launch/beam_dataflow.sh [--dry-run] pack --documents gs://my-bucket/documents --vocab vocab.txt --output gs://my-bucket/packed
#
# The output is byte-identical to that of the same command without the launcher. The launcher waits until the job has
# ended. If it is interrupted, the job continues: run the same command again after the job has ended, to complete the
# folder. Before that it would start a second job. Needs electramed_jax[dataflow] on this machine, with a Python version
# that Beam has worker images for.
#
# Settings
#   PROJECT, REGION    Google Cloud project and region, e.g. PROJECT=my-project REGION=us-west4
#   BUCKET             bucket of Dataflow's temporary files, under gs://BUCKET/dataflow; best in the same region
#   NAME               name of the job (default: electramed-prepare, electramed-pack)
#   MAX_WORKERS        maximum number of machines (default 32); Dataflow scales up to it by the amount of work
#   MACHINE_TYPE       machine type (default n2-standard-8); one process per core needs 4 GB each
#   DISK_GB            disk of each machine in GB (default 50)
#   SERVICE_ACCOUNT    service account of the workers, which reads and writes the buckets (default: Compute Engine's)
#   IMAGE              image for workers that start faster or have no access to PyPI: Beam's image for this version of Beam
#                      and Python, plus electramed_jax[gcs,dedup] (default: each worker installs this checkout at start)
#   BEAM_OPTIONS       other Beam options, quoted as in a shell, e.g. BEAM_OPTIONS="--subnetwork=regions/us-west4/subnetworks/a --no_use_public_ips"
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=launch/functions.sh
source "$here/functions.sh"
if [[ "${1:-}" == --dry-run ]]; then
  dry_run=true
  shift
fi
(: "${PROJECT:?set PROJECT, the Google Cloud project, e.g. PROJECT=my-project}" \
  "${REGION:?set REGION, the region of the bucket, e.g. REGION=us-west4}" \
  "${BUCKET:?set BUCKET, the bucket of temporary files, e.g. BUCKET=my-bucket}") || exit 2
case "${1:-}" in
  prepare | pack) ;;
  '') fail "give an electramed command, e.g. prepare --input='gs://my-bucket/*.xml.gz' --output=gs://my-bucket/documents" ;;
  *) fail "$1 does not run on Dataflow; give prepare or pack" ;;
esac
for word in "$@"; do
  case "$word" in
    --runner | --runner=* | --beam_options | --beam_options=*)
      fail "${word%%=*} is set by this launcher; set BEAM_OPTIONS for further options"
      ;;
  esac
done
NAME="${NAME:-electramed-$1}"
[[ "$NAME" =~ ^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$ ]] ||
  fail "NAME=$NAME is not a valid job name; wanted at most 63 lower-case letters, digits and hyphens"
MAX_WORKERS="${MAX_WORKERS:-32}"
DISK_GB="${DISK_GB:-50}"
require_integers MAX_WORKERS DISK_GB

options=(
  "--project=$PROJECT"
  "--region=$REGION"
  "--temp_location=gs://${BUCKET#gs://}/dataflow"
  "--job_name=$NAME"
  "--max_num_workers=$MAX_WORKERS"
  "--worker_machine_type=${MACHINE_TYPE:-n2-standard-8}"
  "--disk_size_gb=$DISK_GB"
  # One thread per process: more threads of Python would use no more cores, and each would need memory for its input.
  "--number_of_worker_harness_threads=1"
)
if [[ -n "${SERVICE_ACCOUNT:-}" ]]; then options+=("--service_account_email=$SERVICE_ACCOUNT"); fi
if [[ -n "${IMAGE:-}" ]]; then
  options+=("--sdk_container_image=$IMAGE" --sdk_location=container)
else
  # Beam installs the checkout without extras. Workers download the packages of the extras as requirements.
  options+=("--setup_file=$(dirname "$here")/setup.py" "--requirements_file=$here/beam_requirements.txt")
  options+=(--requirements_cache=skip)
fi
run electramed "$@" --runner=DataflowRunner "--beam_options=$(shell_quote "${options[@]}")${BEAM_OPTIONS:+ $BEAM_OPTIONS}"
