"""What becomes of batches and tasks, written down on demand, and made one picture of (docs/tracing.md)."""
