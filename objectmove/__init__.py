"""A proven move over any S3 store: plan, move, proof, undo, settle. Knows nothing of labels.

``planning`` makes plans, ``run`` carries plans out, ``proof`` finds where each planned object is.
``table`` decides what may be done with one row. Only ``bucket`` talks to the store.
"""
