"""What a job consists of, for whoever places it."""
