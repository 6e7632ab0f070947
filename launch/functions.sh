# shellcheck shell=bash disable=SC2034
# Sourced by the launchers: --dry-run, user errors in one line, SIGTERM for child processes.

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
