"""How a training process is stopped, ends, and says why."""
