"""fulfillment-service: orders in, labels and packing slips to ``pending/``, then ``ready/``."""
