"""support-service: tickets, their timelines and the timeline cache."""
