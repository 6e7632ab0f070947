# shellcheck shell=bash disable=SC2034
# Sourced by the launchers: --dry-run, mistakes in one line, and children that hear SIGTERM.

dry_run=false

# run COMMAND...: runs it, or under --dry-run prints it as it could be pasted into a shell.
run() {
  if $dry_run; then quoted "$@"; else "$@"; fi
}

# quoted WORD...: the words in one line that a shell reads back as the same words.
quoted() {
  local word line=()
  for word in "$@"; do
    if [[ "$word" =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]]; then line+=("$word"); else line+=("'${word//\'/\'\\\'\'}'"); fi
  done
  echo "${line[*]}"
}

# fail MESSAGE: the user's mistake; one line, and exit code 2.
fail() {
  echo "${0##*/}: $1" >&2
  exit 2
}

# whole_numbers NAME...: settings that are counts.
whole_numbers() {
  local name
  for name in "$@"; do
    [[ "${!name}" =~ ^[0-9]{1,9}$ ]] || fail "$name=${!name} is not a whole number; set it to one"
  done
}

# switched_on NAME: whether the setting is 1; it may also be 0, or not set.
switched_on() {
  case "${!1:-}" in
    1) ;;
    '' | 0) return 1 ;;
    *) fail "$1=${!1} is neither 1 nor 0; set it to one of them" ;;
  esac
}

# pass_on_signals: from here on, SIGTERM and SIGINT reach the `children` as SIGTERM, and set `told_to_stop`.
children=()
told_to_stop=false
interrupted=false
pass_on_signals() {
  trap 'told_to_stop=true; interrupted=true; kill -TERM "${children[@]}" 2>/dev/null || true' TERM INT
}

# exit_code_of CHILD: waits until it has ended; leaves its exit code in `code`.
exit_code_of() {
  # `wait` also returns when the trap has run, with the child still at work: then it is asked again.
  while :; do
    interrupted=false
    code=0
    wait "$1" || code=$?
    if ! $interrupted; then break; fi
  done
}
