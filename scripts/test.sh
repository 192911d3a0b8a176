#!/bin/sh
# Every test that needs a process or a server, in two lanes beside each other: more of them would
# only wait for two cores. What a lane printed is shown when it is done.
# `make test-airflow` runs tests/airflow, in an environment of its own.
# Ends with 1 when a test failed in either lane.
set -eu

mkdir -p .pytest_cache
log=.pytest_cache/stores.log

on_stores() {
    code=0
    pytest -m process -n 2 --dist worksteal tests/foreign tests/faults || code=1
    pytest -m process tests/alerting || code=1
    return "$code"
}
# The explorer comes last: it keeps every core busy, and the stores' tests hold leases.
elsewhere() {
    pytest -m process --ignore tests/airflow --ignore tests/alerting --ignore tests/browser \
        --ignore tests/faults --ignore tests/foreign --ignore tests/notebooks \
        --ignore tests/stack --deselect tests/objectmove/test_explorer.py tests
}

on_stores >"$log" 2>&1 &
stores=$!
failed=0
pytest -m process tests/notebooks tests/stack tests/browser || failed=1
elsewhere || failed=1
wait "$stores" || failed=1
cat "$log"
pytest -m process tests/objectmove/test_explorer.py || failed=1
exit "$failed"
