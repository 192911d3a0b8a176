"""Pure analysis of numbers, metadata and log lines: nothing here reads or writes."""
