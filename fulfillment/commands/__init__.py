"""What the commands do: release, chaos, preflight. Sections and command line call the same."""
