"""What happened, on disk: incident folders with journal and manifest, and the index of all."""
