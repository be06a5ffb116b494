"""What runs in the thread of the training loop."""
