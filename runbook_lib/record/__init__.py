"""What happened, on disk: chained logs, incident folders, manifests."""
