# JupyterLab with the notebooks, for the profile `lab` of docker-compose.yml.
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
COPY scripts/jupyter /etc/jupyter
RUN python requirements.py all > constraints.txt \
    && pip install --no-cache-dir -c constraints.txt ".[lab]"

ENV PYTHONUNBUFFERED=1 HOME=/tmp RUNBOOK_HOME=/reports
RUN mkdir /reports && chown 65534:65534 /reports
USER 65534:65534
WORKDIR /notebooks
