"""A runbook for an S3 landing zone that is full."""
