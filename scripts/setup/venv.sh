#!/bin/sh
# Make .venv and install the versions of requirements.lock, checked by their hashes, and the project.
# Usage: venv.sh PYTHON
set -eu

python=${1:-}
if [ -z "$python" ]; then
    echo "No Python 3.11 or newer was found. Install one (Debian: apt-get install python3 python3-venv;" >&2
    echo "macOS: brew install python@3.13) or name it: make setup PYTHON=/path/to/python3" >&2
    exit 1
fi

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null 2>&1; then sudo "$@"; else return 1; fi
}

if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "$python has no ensurepip; installing python$version-venv"
    if ! { as_root apt-get update -q && as_root apt-get install -y -q "python$version-venv"; } >/dev/null; then
        echo "Install it and try again: apt-get install python$version-venv" >&2
        exit 1
    fi
fi

[ -x .venv/bin/python ] || "$python" -m venv .venv
echo "installing the dependencies into .venv (about a minute)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements.lock
# pip would compile on one core. A file that fails here is compiled at its import, or fails there.
.venv/bin/python -m compileall -q -j 0 -x '/tests?/' .venv/lib >/dev/null 2>&1 || true
# setuptools, which builds the project, is in the lock, too.
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
