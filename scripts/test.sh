#!/bin/sh
# Every test that needs a process or a server. They wait most of the time for stores, kernels and a
# browser, so they run in three lanes beside each other. The first lane is shown as it runs, the
# others when they are done. Ends with 1 when a test failed in any lane.
set -eu

logs=.pytest_cache/lanes
mkdir -p "$logs"
rm -f "$logs"/*
export PYTEST_ADDOPTS='-m process'

in_stack() {
    code=0
    pytest tests/notebooks tests/stack || code=1
    pytest tests/browser || code=1
    return "$code"
}
on_stores() { pytest -n 3 --dist worksteal tests/foreign tests/faults; }
# `make test-airflow` runs tests/airflow, in an environment of its own.
elsewhere() {
    pytest --ignore tests/airflow --ignore tests/browser --ignore tests/faults \
        --ignore tests/foreign --ignore tests/notebooks --ignore tests/stack tests
}
run_beside() {
    if "$1" >"$logs/$1.log" 2>&1; then echo 0 >"$logs/$1.code"; else echo 1 >"$logs/$1.code"; fi
}

run_beside on_stores &
run_beside elsewhere &
failed=0
in_stack || failed=1
wait
for lane in on_stores elsewhere; do
    cat "$logs/$lane.log"
    [ "$(cat "$logs/$lane.code")" = 0 ] || failed=1
done
exit "$failed"
