"""Scored drills: scenarios, the run, the score, the schedule."""
