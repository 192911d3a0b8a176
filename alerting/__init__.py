"""From alert to report: take Alertmanager's alerts, investigate, deliver. Changes no system."""
