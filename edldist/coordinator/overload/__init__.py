"""What jobs that share a fleet have to do without while it is overloaded. Pure."""
