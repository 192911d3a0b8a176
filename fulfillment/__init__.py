"""The fulfilment backlog runbook: its sections, causes, clients, actions, drills and commands."""
