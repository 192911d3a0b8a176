#!/bin/sh
# Every test that needs a process or a server, in four lanes beside each other: they wait for
# servers as often as they compute, and more lanes would only wait for two cores. What a lane in
# the background printed is shown when it is done.
# What failed beside others is run once more, alone: only what fails again is a failure, and both
# runs are shown. `make test-airflow` runs tests/airflow, in an environment of its own. Tests with the
# mark `long` are left to `make test-long`.
set -eu

kept=.pytest_cache
mkdir -p "$kept"
rm -f "$kept"/*.failed

# part NAME ARGUMENTS... - run a part of the tests.
part() {
    name=$1
    shift
    pytest -m "process and not long" --durations=8 -o "cache_dir=$kept/$name" "$@"
}
stack() { part stack "$@" --ignore tests/stack/test_true_ends.py tests/stack; }
true_ends() { part true_ends "$@" tests/stack/test_true_ends.py; }
notebooks() { part notebooks "$@" tests/notebooks; }
stores() { part stores "$@" tests/foreign tests/faults; }
drills() { part drills "$@" tests/drills; }
alerting() { part alerting "$@" tests/alerting; }
browser() { part browser "$@" tests/browser; }
library() { part library "$@" tests/runbook_lib; }
elsewhere() {
    part elsewhere "$@" --ignore tests/airflow --ignore tests/alerting --ignore tests/browser \
        --ignore tests/drills --ignore tests/faults --ignore tests/foreign --ignore tests/notebooks \
        --ignore tests/runbook_lib --ignore tests/stack \
        --deselect tests/objectmove/test_explorer.py tests
}
# Each lane takes ports of its own: two workers take those of two lanes. It writes which of its parts
# failed. One that was killed writes no file.
stores_lane() {
    export TEST_LANE=1
    failed=""
    stores -n 2 --dist worksteal || failed="$failed stores"
    echo "$failed" >"$kept/stores_lane.failed"
}
alerting_lane() {
    export TEST_LANE=3
    failed=""
    alerting || failed="$failed alerting"
    echo "$failed" >"$kept/alerting_lane.failed"
}
browser_lane() {
    export TEST_LANE=4
    failed=""
    browser || failed="$failed browser"
    notebooks || failed="$failed notebooks"
    true_ends || failed="$failed true_ends"
    library || failed="$failed library"
    elsewhere || failed="$failed elsewhere"
    echo "$failed" >"$kept/browser_lane.failed"
}

stores_lane >"$kept/stores.log" 2>&1 &
stores_lane=$!
alerting_lane >"$kept/alerting.log" 2>&1 &
alerting_lane=$!
browser_lane >"$kept/browser.log" 2>&1 &
browser_lane=$!
failed=""
stack || failed="stack"
drills || failed="$failed drills"
wait "$stores_lane" || true
wait "$alerting_lane" || true
wait "$browser_lane" || true
cat "$kept/stores.log" "$kept/alerting.log" "$kept/browser.log"
for lane in stores alerting browser; do
    failed="$failed$(cat "$kept/${lane}_lane.failed")"
done

code=0
for name in $failed; do
    echo "part $name: what failed is run once more, alone"
    "$name" --last-failed --last-failed-no-failures=none || code=1
done
# The explorer comes last: it keeps every core busy, and the stores' tests hold leases.
pytest -m process tests/objectmove/test_explorer.py || code=1
exit "$code"
