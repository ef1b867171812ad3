#!/bin/sh
# build_venv.sh VENV LOCK MARKER: builds VENV from LOCK, once, whoever else on this machine wants it at the same time.
# The marker comes last, so that an interrupted build is done again.
set -eu
venv=$1 lock=$2 marker=$3
umask 022
exec 9>"$(dirname "$venv")/.lock"
flock 9
if [ -e "$marker" ]; then exit 0; fi
rm -rf "$venv"
/usr/bin/python3 -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-cache-dir \
  --require-hashes --only-binary :all: --requirement "$lock"
touch "$marker"
