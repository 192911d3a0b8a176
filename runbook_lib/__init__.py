"""The helper under a runbook: investigation, gate, journal, report, notebooks, command line."""
