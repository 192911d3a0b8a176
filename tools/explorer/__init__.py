"""The judge of the proven move: a world that knows nothing of the engine, and a person who uses it.

``world`` is a store, a worker, consumers and disks in memory, with a history of what happened;
``audits`` judge that history alone. ``person`` types commands as they are printed, until none is
left. ``explore`` disturbs both, at every point and in every way.
"""
