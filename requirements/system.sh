#!/bin/sh
# Puts the system programs named as arguments on this machine when they are absent: system.sh mosquitto chromium
# Debian and Ubuntu by apt-get, macOS by brew; elsewhere it says what to install and exits 5.
set -eu

# mosquitto lies in /usr/sbin, which is off a normal user's PATH.
PATH="$PATH:/usr/sbin:/sbin:/opt/homebrew/sbin:/usr/local/sbin"

missing=""
for program in "$@"; do
  command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
[ -n "$missing" ] || exit 0

say() { echo "system.sh: $*" >&2; }

if command -v apt-get >/dev/null 2>&1; then
  sudo=""
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 || { say "not root and no sudo; install by hand:$missing"; exit 5; }
    sudo="sudo"
  fi
  say "installing$missing by apt-get"
  # The package would start a broker of its own on port 1883; ours runs under `fleet serve` on its own port.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
    $sudo chmod +x "$policy"
    trap '$sudo rm -f "$policy"' EXIT
  fi
  $sudo apt-get update -qq
  # shellcheck disable=SC2086  # one word per program
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
elif command -v brew >/dev/null 2>&1; then
  say "installing$missing by brew"
  # shellcheck disable=SC2086
  brew install $missing
else
  say "install these programs, then try again:$missing"
  exit 5
fi
