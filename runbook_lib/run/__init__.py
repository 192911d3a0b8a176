"""Everything that runs without a person: notebooks, drills, schedules, the commands' work."""
