#!/bin/sh
# Makes requirements-<version>.txt anew from requirements.in: every package with the hashes of its wheels, for the
# Pythons of Debian 12 and 13 (3.11 to 3.13) on x86_64 and aarch64. Needs uv.
set -eu
cd "$(dirname "$0")"
version=$(sed -n 's/^matrix-synapse\[.*\]==//p' requirements.in)
uv --no-config pip compile requirements.in --quiet --upgrade --generate-hashes --universal --python-version 3.11 \
  --only-binary :all: --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
  --output-file "requirements-$version.txt"
echo "requirements-$version.txt: set synapse_version to $version in defaults/main.yml, and run the tests"
