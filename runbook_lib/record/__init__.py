"""What happened, on disk: incident folders with journal and manifest, and the history of all."""
