# The artifact exporter alone, to run beside a DataFlow: addons/artifact_exporter/compose.yml.
ARG PYTHON_VERSION=3.13
FROM python:${PYTHON_VERSION}-slim

WORKDIR /app
COPY requirements.lock docker/requirements.py ./
RUN python requirements.py exporter > requirements.txt \
    && pip install --no-cache-dir -r requirements.txt

COPY objectmove ./objectmove
COPY addons ./addons
ENV PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65534:65534
ENTRYPOINT ["python", "-m", "addons.artifact_exporter"]
