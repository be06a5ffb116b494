"""Commands for jobs on clusters."""
