#!/bin/sh
# Test the pipeline client, and the DAGs of addons/airflow, against a real Airflow with PostgreSQL,
# in an environment of its own.
#   test.sh [--record] [pytest arguments]
# --record writes Airflow's answers anew into tests/contract/recorded/airflow.
# AIRFLOW_TEST_HOME (.airflow) keeps the environment for the next time, about 300 MB;
# AIRFLOW_TEST_PORT takes that port and the next two instead of free ones.
set -eu
cd "$(dirname "$0")/../.."

home=${AIRFLOW_TEST_HOME:-.airflow}
if [ "${1:-}" = --record ]; then
    shift
    AIRFLOW_TEST_RECORD=1
    export AIRFLOW_TEST_RECORD
fi

if ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 && ! command -v initdb >/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing Debian's PostgreSQL"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql
    else
        echo "PostgreSQL is missing (initdb, postgres). Install it: sudo apt-get install postgresql" >&2
        exit 2
    fi
fi

pins=$(cat scripts/airflow/*.txt | cksum)
if [ "$(cat "$home/installed" 2>/dev/null)" != "$pins" ]; then
    echo "installing Airflow into $home/venv (about a minute)"
    .venv/bin/python -m venv --clear "$home/venv"
    "$home/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        -r scripts/airflow/requirements.txt
    "$home/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
        -r scripts/airflow/papermill.txt
    echo "$pins" >"$home/installed"
fi
exec .venv/bin/python scripts/airflow/serve.py "$home" .venv/bin/python -m pytest tests/airflow "$@"
