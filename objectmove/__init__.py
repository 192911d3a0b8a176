"""A proven move over any S3 store: plan, move, proof, undo, settle. Knows nothing of labels.

``planning`` makes plans, ``move`` carries them out, ``proof`` looks where everything is; ``table``
decides what may be done with one row; only ``bucket`` talks to the store.
"""
