"""The commands of this runbook, as the command line shows them."""
