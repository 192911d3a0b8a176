# `runbook serve` alone, to run beside a DataFlow: addons/runbook_serve/compose.yml.
ARG PYTHON_VERSION=3.13
FROM python:${PYTHON_VERSION}-slim

WORKDIR /app
COPY pyproject.toml README.md LICENSE requirements.lock docker/requirements.py ./
COPY chainlog ./chainlog
COPY objectmove ./objectmove
COPY runbook_lib ./runbook_lib
COPY fulfillment ./fulfillment
COPY alerting ./alerting
COPY notebooks ./notebooks
COPY dataflow_stack ./dataflow_stack
COPY addons ./addons
RUN python requirements.py all > constraints.txt \
    && pip install --no-cache-dir -c constraints.txt ".[serve]"

ENV PYTHONUNBUFFERED=1 HOME=/tmp RUNBOOK_HOME=/reports
RUN mkdir /reports && chown 65534:65534 /reports
USER 65534:65534
WORKDIR /reports
ENTRYPOINT ["runbook", "serve"]
