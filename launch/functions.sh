# shellcheck shell=bash disable=SC2034
# Sourced by the launchers: --dry-run, user errors in one line, TPU slices and their cost, SIGTERM for child processes.

dry_run=false

# run COMMAND...: runs the command; with --dry-run prints it, quoted for a shell.
run() {
  if $dry_run; then shell_quote "$@"; else "$@"; fi
}

# shell_quote WORD...: prints the words in one line, quoted so that a shell reads the same words.
shell_quote() {
  local word line=()
  for word in "$@"; do
    if [[ "$word" =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]]; then line+=("$word"); else line+=("'${word//\'/\'\\\'\'}'"); fi
  done
  echo "${line[*]}"
}

# fail MESSAGE: prints one line and exits with 2, the code for user errors.
fail() {
  echo "${0##*/}: $1" >&2
  exit 2
}

# require_integers NAME...: fails unless each setting is a whole number.
require_integers() {
  local name
  for name in "$@"; do
    [[ "${!name}" =~ ^[0-9]{1,9}$ ]] || fail "$name=${!name}: wanted a whole number"
  done
}

# is_enabled NAME: true if the setting is 1, false if it is 0 or unset; fails for other values.
is_enabled() {
  case "${!1:-}" in
    1) ;;
    '' | 0) return 1 ;;
    *) fail "$1=${!1}: wanted 1 or 0" ;;
  esac
}

# read_slice: sets CHIPS, HOSTS, ACCELERATOR_TYPE, RUNTIME, MACHINE, IMAGE_FAMILY, GKE_ACCELERATOR and PLACEMENT from
# TOPOLOGY, by tpu_slices.txt. Fails if there is no such slice; names the nearest ones.
read_slice() {
  local table name count=0 smaller='' larger='' hint=''
  table="$(grep -v '^#' "$(dirname "${BASH_SOURCE[0]}")/tpu_slices.txt")"
  [[ "$TOPOLOGY" =~ :[1-9][0-9]{0,3}(x[1-9][0-9]{0,3})*$ ]] && count="${TOPOLOGY#*:}" && count=$((${count//x/*}))
  while read -r name CHIPS HOSTS ACCELERATOR_TYPE RUNTIME MACHINE IMAGE_FAMILY GKE_ACCELERATOR PLACEMENT; do
    if [[ "$name" == "$TOPOLOGY" ]]; then return; fi
    if [[ "$ACCELERATOR_TYPE" == "${TOPOLOGY/#v5e-/v5litepod-}" ]]; then hint="$TOPOLOGY is $name"; fi
    if [[ "${name%%:*}" == "${TOPOLOGY%%:*}" ]]; then
      if ((CHIPS <= count)); then smaller="$name"; else larger="${larger:-$name}"; fi
    fi
  done <<<"$table"
  if [[ -n "$smaller$larger" ]]; then
    hint="the nearest: ${smaller:+$smaller${larger:+, }}$larger"
  fi
  fail "TOPOLOGY=$TOPOLOGY: no such slice; ${hint:-wanted for example v5e:4x4, v4:2x2x4, v5p:2x2x4, v6e:4x4 or tpu7x:2x2x4}"
}

# check_capacity: fails unless SPOT, FLEX_START_HOURS and SLICES are valid; sets `capacity` to on demand, spot or flex-start.
check_capacity() {
  capacity="on demand"
  SLICES="${SLICES:-1}"
  require_integers SLICES
  ((SLICES > 0)) || fail "SLICES=$SLICES: wanted 1 or more"
  if is_enabled SPOT; then capacity=spot; fi
  if [[ -n "${FLEX_START_HOURS:-}" ]]; then
    require_integers FLEX_START_HOURS
    ((FLEX_START_HOURS > 0 && FLEX_START_HOURS <= 168)) || fail "FLEX_START_HOURS=$FLEX_START_HOURS: wanted 1 to 168"
    [[ "$capacity" != spot ]] || fail "SPOT=1 and FLEX_START_HOURS exclude each other; set one of them"
    capacity=flex-start
  fi
}

# print_cost: prints what the slices cost, before anything is created. PRICE_PER_CHIP_HOUR is the user's: prices change.
print_cost() {
  local text="cost: $((SLICES * CHIPS)) chips ($SLICES x $TOPOLOGY, $capacity)"
  if [[ -z "${PRICE_PER_CHIP_HOUR:-}" ]]; then
    echo "$text; for a sum set PRICE_PER_CHIP_HOUR, see https://cloud.google.com/tpu/pricing" >&2
    return
  fi
  [[ "$PRICE_PER_CHIP_HOUR" =~ ^[0-9]+(\.[0-9]+)?$ ]] ||
    fail "PRICE_PER_CHIP_HOUR=$PRICE_PER_CHIP_HOUR: wanted a number, in USD, e.g. 1.20"
  awk -v text="$text" -v hourly="$((SLICES * CHIPS)) $PRICE_PER_CHIP_HOUR" -v hours="${FLEX_START_HOURS:-}" 'BEGIN {
    split(hourly, factor, " "); sum = factor[1] * factor[2]
    printf "%s at %s USD a chip-hour: %.2f USD an hour, %.2f USD a day", text, factor[2], sum, 24 * sum
    if (hours != "") printf ", at most %.2f USD in %d hours\n", sum * hours, hours; else print ", until it is deleted"
  }' >&2
}

# forward_signals: installs a trap. SIGTERM and SIGINT are sent to `children` as SIGTERM and set `stop_requested`.
children=()
stop_requested=false
interrupted=false
forward_signals() {
  trap 'stop_requested=true; interrupted=true; kill -TERM "${children[@]}" 2>/dev/null || true' TERM INT
}

# exit_code_of CHILD: waits until the process has ended; sets `code` to its exit code.
exit_code_of() {
  # `wait` also returns after the trap has run, while the child still runs: then wait again.
  while :; do
    interrupted=false
    code=0
    wait "$1" || code=$?
    if ! $interrupted; then break; fi
  done
}
