"""A proven move over any S3 store: plan, move, proof, undo, settle. Knows nothing of labels.

Only ``bucket`` talks to the store. ``table`` decides what may be done with a row.
"""
