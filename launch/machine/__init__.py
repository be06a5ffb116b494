"""What this machine has for the processes that are about to start on it."""
