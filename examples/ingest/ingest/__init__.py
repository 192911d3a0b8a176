"""A runbook for batches that an ingestion job left half moved."""
