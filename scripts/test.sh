#!/bin/sh
# Every test that needs a process or a server. They wait most of the time for stores, kernels and a
# browser, so they run in four lanes beside each other. What a lane printed is shown when it is done.
# `make test-airflow` runs tests/airflow, in an environment of its own.
# Ends with 1 when a test failed in any lane.
set -eu

mkdir -p .pytest_cache
failed=0

# start NAME ARGUMENTS... - run pytest in the background; `finish` waits for it and shows it.
start() {
    name=$1
    shift
    echo "lane $name: begun"
    pytest -m process "$@" >".pytest_cache/$name.log" 2>&1 &
    eval "pid_$name=\$!"
}
finish() {
    eval "pid=\$pid_$1"
    status=0
    wait "$pid" || status=$?
    cat ".pytest_cache/$1.log"
    if [ "$status" -ne 0 ]; then
        echo "lane $1: exit $status"
        failed=1
    fi
}

# These two lanes have a stack each.
start incidents tests/stack/test_incident.py tests/stack/test_notebooks_nbval.py \
    tests/browser/test_jupyterlab.py
start stack tests/notebooks tests/stack --ignore tests/stack/test_incident.py \
    --ignore tests/stack/test_notebooks_nbval.py
start stores -n 2 --dist worksteal tests/foreign tests/faults
start others tests --ignore tests/airflow --ignore tests/browser/test_jupyterlab.py \
    --ignore tests/faults --ignore tests/foreign --ignore tests/notebooks --ignore tests/stack \
    --deselect tests/objectmove/test_explorer.py
finish others
finish incidents
finish stack
finish stores
# Last: the search of the explorer keeps every core busy, and the other tests hold leases.
start explorer tests/objectmove/test_explorer.py
finish explorer
exit "$failed"
