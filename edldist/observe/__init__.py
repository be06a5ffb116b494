"""What people see of a running job: logs, reports, events."""
