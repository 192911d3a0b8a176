# The targets that people and CI use. `make help` lists them.
SHELL := /bin/sh
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONDONTWRITEBYTECODE :=
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
ARGS ?=
INCIDENT ?=

.PHONY: help setup setup-test demo up down status lab investigate drill drills chaos-fulfillment-delay \
	report samples lock lint unit check test test-long test-faults test-rgw test-foreign test-model test-airflow test-drills \
	diagnose-sealed diagnose-matrix bench bench-alert bench-safety mutate release clean

help: ## List every target
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-26s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.ready ## Make .venv, install the locked dependencies, bring Prometheus and Alertmanager
	@sh scripts/setup/prometheus.sh >&2

.venv/.ready: pyproject.toml requirements.lock scripts/setup/venv.sh
	@sh scripts/setup/venv.sh "$(PYTHON)" >&2
	@touch $@

lock: ## Write requirements.lock anew from pyproject.toml (ARGS="--upgrade": the newest that it allows)
	@sh scripts/setup/lock.sh "$(PYTHON)" $(ARGS)

setup-test: setup
	@sh scripts/setup/prometheus.sh --test >&2

demo: setup ## Start the local stack, run a scored drill, stop, show verdict and report
	@sh scripts/demo.sh

up: setup ## Start the local stack and wait until it is healthy
	@runbook stack up

down: setup ## Stop the local stack; its data stays
	@runbook stack down

status: setup ## Show the local stack's services
	@runbook stack status

lab: setup ## Open copies of the notebooks in JupyterLab, in the incident's folder
	@sh scripts/with_stack.sh python -m scripts.lab $(ARGS)

investigate: setup ## Sections 1, 2, 3, 5, 8 and the report; only reads (ARGS="--ticket ID")
	@sh scripts/with_stack.sh runbook investigate $(ARGS)

drill: setup ## Inject a real fault, carry out the runbook, score it (ARGS="NAME")
	@sh scripts/with_stack.sh runbook drill $(ARGS)

drills: setup ## Every drill there is, and docs/drills.md from what it took (ARGS="--rounds 5")
	@sh scripts/with_stack.sh python -m scripts.make_drills_table $(or $(ARGS),--rounds 1)

chaos-fulfillment-delay: setup ## Synthetic backlog (ARGS="--count 25 --hold-minutes 30" or "--revert")
	@sh scripts/with_stack.sh python scripts/chaos/simulate_fulfillment_delay.py $(ARGS)

report: setup ## Build an incident's report again (INCIDENT=inc-…)
	@sh scripts/with_stack.sh runbook report "$(INCIDENT)"

lint: .venv/.ready ## Format, lint, types, imports, the lock, size, plain code
	@ruff format --check .
	@ruff check .
	@mypy
	@lint-imports
	@python -m scripts.count_tokens
	@python -m scripts.check_plain

check: .venv/.ready ## Before each commit: lint, and every test that needs no process or server
	@$(MAKE) --no-print-directory -j 2 lint unit

unit: .venv/.ready
	@pytest -q -n 2 --dist worksteal -m "not process"

test: setup-test check ## Everything that CI checks: check, then every other test
	@python -m scripts.run_tests

release: setup ## Build the three wheels and their SBOM into dist/, try each on its own; upload nothing
	@python -m scripts.release

bench: setup ## Plan, apply and verify 5,000 labels beside s5cmd, mc and rclone (ARGS="--only growth": one part)
	@sh scripts/setup/prometheus.sh --bench >&2
	@python -m bench.release $(ARGS)

bench-alert: setup-test ## From Alertmanager's firing to the report on the ticket
	@python -m bench.alert $(ARGS)

bench-safety: setup ## Lost answers, kills, collisions: objectmove beside four movers (ARGS="--seed 1")
	@sh scripts/setup/prometheus.sh --bench >&2
	@sh scripts/setup/awscli.sh >&2
	@python -m bench.safety $(ARGS)

mutate: setup ## Change the code in 200 small ways, and count which the tests notice (ARGS="--seed 1 --list": show them)
	@python -m tools.mutate $(ARGS)

test-long: setup-test ## All tests with the mark `long`, which `make test` leaves out: over an hour
	@pytest -m long $(ARGS)

test-faults: setup-test ## All fault tests: at least 200 kills on two stores
	@RUNBOOK_FAULT_RUNS=100 pytest tests/faults $(ARGS)

test-rgw: .venv/.ready ## The store's contract and the fault tests on Ceph's gateway, with and without copies
	@python -m tests.support.rgw
	@TEST_STORES=rgw pytest tests/contract/test_object_store.py -k rgw $(ARGS)
	@for store in rgw rgw-encrypted; do TEST_STORES=$$store pytest tests/faults -k rgw $(ARGS) || exit 1; done

test-foreign: setup-test ## A DataFlow that is not ours, on two stores, with TLS, tokens and other people
	@pytest tests/foreign $(ARGS)

test-drills: setup-test ## Drills that are killed, and lose their network or their watchdog
	@pytest tests/drills $(ARGS)

test-model: setup-test ## The move against every interleaving up to the bound: half an hour on two cores
	@python -m tools.explorer.explore --full $(ARGS)

test-airflow: setup ## The pipeline client and the DAGs against a real Airflow with PostgreSQL
	@sh scripts/airflow/test.sh $(ARGS)

diagnose-matrix: setup ## Every fault three times, pairs, no fault: ARGS="play FILE", then ARGS="page FILE"
	@python -m tests.diagnosis.matrix $(ARGS)

diagnose-sealed: setup ## Forty cases by an author who hasn't read the rules: ARGS="play FILE", then ARGS="page FILE"
	@python -m tests.diagnosis.sealed $(ARGS)

samples: setup ## Make the sample reports under docs/samples and the README's pictures
	@sh scripts/setup/prometheus.sh --test >&2
	@python -m scripts.make_samples

clean: ## Remove what was built; reports and the stack's data stay
	@rm -rf .venv .awscli build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
