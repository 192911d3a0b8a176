#!/bin/sh
# Every test that needs a process or a server, in two lanes beside each other: more of them would
# only wait for two cores. What the second lane printed is shown when it is done.
# What failed beside others is run once more, alone: only what fails again is a failure, and both
# runs are shown. `make test-airflow` runs tests/airflow, in an environment of its own, and
# `make test-drills` runs every drill that is killed; here only those without the mark `long` are.
set -eu

log=.pytest_cache/stores.log
mkdir -p .pytest_cache
rm -f .pytest_cache/beside.failed
failed=""

# part NAME ARGUMENTS... - run a part of the tests; its failures are remembered by its name.
part() {
    name=$1
    shift
    pytest -m process -o "cache_dir=.pytest_cache/$name" "$@"
}
stores() { part stores "$@" tests/foreign tests/faults; }
alerting() { part alerting "$@" tests/alerting; }
stack() { part stack "$@" tests/notebooks tests/stack tests/browser; }
drills() { part drills -m "process and not long" "$@" tests/drills; }
elsewhere() {
    part elsewhere "$@" --ignore tests/airflow --ignore tests/alerting --ignore tests/browser \
        --ignore tests/drills --ignore tests/faults --ignore tests/foreign --ignore tests/notebooks \
        --ignore tests/stack --deselect tests/objectmove/test_explorer.py tests
}
beside() {
    names=""
    stores -n 2 --dist worksteal || names="$names stores"
    alerting || names="$names alerting"
    echo "$names" >.pytest_cache/beside.failed
}

beside >"$log" 2>&1 &
lane=$!
stack || failed="$failed stack"
drills || failed="$failed drills"
elsewhere || failed="$failed elsewhere"
wait "$lane" || true
cat "$log"
# A lane that was killed wrote no file: cat then ends this script.
failed="$failed$(cat .pytest_cache/beside.failed)"

code=0
for name in $failed; do
    echo "part $name: what failed is run once more, alone"
    "$name" --last-failed --last-failed-no-failures=none || code=1
done
# The explorer comes last: it keeps every core busy, and the stores' tests hold leases.
pytest -m process tests/objectmove/test_explorer.py || code=1
exit "$code"
