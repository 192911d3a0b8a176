"""Grafana's data source and the dashboard ``Dataflow Overview``."""
