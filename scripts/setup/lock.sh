#!/bin/sh
# Write requirements.lock anew from pyproject.toml: exact versions with hashes, for every Python and
# system that is supported. Versions stay as they are where they may; with --upgrade all are the
# newest allowed. Usage: lock.sh PYTHON [--upgrade]
set -eu

python=$1
shift
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

"$python" -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
"$scratch/venv/bin/uv" pip compile --quiet --universal --generate-hashes --no-emit-index-url \
    --all-extras --python-version 3.11 --custom-compile-command 'make lock' "$@" pyproject.toml -o requirements.lock
