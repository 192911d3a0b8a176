"""From alert to report: take Alertmanager's alerts, investigate, deliver. Changes nothing else."""
