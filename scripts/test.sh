#!/bin/sh
# Every test that needs a process or a server. They wait most of the time for stores, kernels and a
# browser, so they run in two lanes beside each other. The first lane is shown as it runs, the other
# one when it is done. Ends with 1 when a test failed in either lane.
set -eu

mkdir -p .pytest_cache
log=.pytest_cache/stores.log

on_stores() { pytest -m process -n 3 --dist worksteal tests/foreign tests/faults; }
# `make test-airflow` runs tests/airflow, in an environment of its own.
elsewhere() {
    pytest -m process --ignore tests/airflow --ignore tests/browser --ignore tests/faults \
        --ignore tests/foreign --ignore tests/notebooks --ignore tests/stack tests
}

on_stores >"$log" 2>&1 &
stores=$!
failed=0
pytest -m process tests/notebooks tests/stack || failed=1
pytest -m process tests/browser || failed=1
# Last: the search of the explorer keeps every core busy, and the stores' tests hold leases.
elsewhere || failed=1
wait "$stores" || failed=1
cat "$log"
exit "$failed"
