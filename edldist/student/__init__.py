"""The student role: what a training script uses, and the rank that owns its label queue."""
