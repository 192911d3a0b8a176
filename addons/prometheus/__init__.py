"""Templates of ``prometheus.yml`` and its rules."""
