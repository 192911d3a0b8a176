"""Pure analysis: numbers and metadata in, numbers out; nothing here reads or writes."""
