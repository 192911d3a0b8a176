#!/bin/sh
# Install `aws` for `make bench-safety`, in an environment of its own: it needs older versions of what
# the project needs. The group `safety` of pyproject.toml says which version.
set -eu
cd "$(dirname "$0")/../.."

home=.awscli
pins=$(cksum <pyproject.toml)
if [ "$(cat "$home/installed" 2>/dev/null)" != "$pins" ]; then
    echo "installing awscli into $home"
    .venv/bin/python -m venv --clear "$home"
    # `--group` needs this version.
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check --group safety
    echo "$pins" >"$home/installed"
fi
