#!/bin/sh
# Starts the device runtime that this package brings: /usr/bin/edgewright-runtime.
set -eu

unset PYTHONPATH PYTHONHOME
# No code from the current folder or a user's own packages.
export PYTHONSAFEPATH=1 PYTHONNOUSERSITE=1

# What root would write below the state directory (keys, slots), the daemon could not read: become the daemon's user.
as_user=""
if [ "$(id -u)" -eq 0 ]; then
  as_user="setpriv --reuid edgewright --regid edgewright --init-groups --no-new-privs --inh-caps=-all"
fi
# shellcheck disable=SC2086  # several words, or none
exec $as_user /usr/lib/edgewright/bin/python3 -m runtime.cli "$@"
