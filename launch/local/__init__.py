"""Child processes on this machine: start, watch, restart, log and end them."""
