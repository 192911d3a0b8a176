"""Alert to report: take Alertmanager's webhook, investigate, deliver. Changes nothing."""
