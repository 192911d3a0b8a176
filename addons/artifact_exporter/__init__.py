"""The exporter of the fulfilment backlog: how many artefacts wait in the bucket, and how long."""
