"""What the coordinator tells over HTTP."""
