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
# In one go: what is added has to suit what is locked.
set -- --requirement "$sources/requirements.txt"
if [ -e "$sources/extra-requirements.txt" ]; then set -- "$@" --requirement "$sources/extra-requirements.txt"; fi
if ! said=$("$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-cache-dir \
  --require-hashes --only-binary :all: "$@" 2>&1); then
  printf '%s\n' "$said" >&2
  # pip's own last line says that a version does not exist.
  case $said in *"connection broken by"*)
    echo "The index of Python packages was not reached from this machine, so Synapse cannot be built. If it is behind a" \
      "proxy or has a mirror, set https_proxy or PIP_INDEX_URL in synapse_pip_environment; otherwise check its name" \
      "resolution and firewall." >&2 ;;
  esac
  exit 1
fi
cp -R "$sources/site-packages/." "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
# Compiled once, and complete, or this is where it shows.
"$venv/bin/python" -c 'import cae_matrix_federation, cae_matrix_opt_in, cae_matrix_rehearsal, cae_matrix_service'
touch "$marker"
