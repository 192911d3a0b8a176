#!/bin/sh
# Run a command with the local stack's settings when the stack is up and nothing else is set.
# A MINIO_ENDPOINT in the environment, or a .env file, means that you point at another system.
set -eu

if [ -z "${MINIO_ENDPOINT:-}" ] && [ ! -f .env ]; then
    if [ -S "${RUNBOOK_STACK_HOME:-.stack}/supervisor.sock" ]; then
        settings=$(runbook stack env)
        eval "$settings"
    else
        echo "The local stack is not running: make up. Or point at your own system: see .env.example." >&2
        exit 2
    fi
fi
exec "$@"
