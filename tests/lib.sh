# Shared by the scripts in tests/ and .ci/: sourced, never run. Names of everything that we make carry the prefix or
# the label below, so that cleaning up never touches what is not ours.
# shellcheck shell=bash
set -Eeuo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=$ROOT/.cache
LABEL=cae.matrix
export ROOT CACHE LABEL
mkdir -p "$CACHE"

say() { printf '==> %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Commands that change the machine run as root: directly, or through sudo.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        command -v sudo >/dev/null || die "this step needs root and there is no sudo: run it as root"
        sudo "$@"
    fi
}

# digest FILE...: one digest of the contents, so that what was built from them can be recognised.
digest() { cat "$@" | sha256sum | cut -c1-16; }
