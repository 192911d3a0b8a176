#!/bin/sh
# Test the pipeline client against a real Airflow, in an environment of its own.
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

pins=$(cat scripts/airflow/requirements.txt scripts/airflow/constraints.txt | cksum)
if [ "$(cat "$home/installed" 2>/dev/null)" != "$pins" ]; then
    echo "installing Airflow into $home/venv (about a minute)"
    .venv/bin/python -m venv --clear "$home/venv"
    "$home/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        -r scripts/airflow/requirements.txt
    echo "$pins" >"$home/installed"
fi
exec .venv/bin/python scripts/airflow/serve.py "$home" .venv/bin/python -m pytest tests/airflow "$@"
