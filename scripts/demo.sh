#!/bin/sh
# Start the local stack, run the default drill, stop what was started.
set -eu

started=no
stop() {
    if [ "$started" = yes ]; then runbook stack down || true; fi
}
trap stop EXIT
trap 'exit 130' INT TERM

[ -S "${RUNBOOK_STACK_HOME:-.stack}/supervisor.sock" ] || started=yes
runbook stack up
settings=$(runbook stack env)
eval "$settings"
code=0
runbook drill || code=$?
stop
started=no
exit "$code"
