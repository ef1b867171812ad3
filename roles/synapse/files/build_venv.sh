#!/bin/sh
# build_venv.sh VENV SOURCES MARKER: builds VENV from SOURCES, once, whoever else on this machine wants it at the same time.
# The marker comes last, so that an interrupted build is done again.
set -eu
venv=$1 sources=$2 marker=$3
umask 022
exec 9>"$(dirname "$venv")/.lock"
flock 9
if [ -e "$marker" ]; then exit 0; fi
rm -rf "$venv"
/usr/bin/python3 -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-cache-dir \
  --require-hashes --only-binary :all: --requirement "$sources/requirements.txt"
cp -R "$sources/site-packages/." "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
# Compiled once, and complete, or this is where it shows.
"$venv/bin/python" -c 'import cae_matrix_federation, cae_matrix_opt_in'
touch "$marker"
