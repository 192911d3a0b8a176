"""A runbook for an S3 inbox that is stuck."""
