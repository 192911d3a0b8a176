"""A runbook for a folder in which files should not stay."""
