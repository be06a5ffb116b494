"""What watches jobs from outside: alert rules, a Grafana dashboard, and a page about the metrics."""
