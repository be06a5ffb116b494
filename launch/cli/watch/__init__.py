"""Commands that look at a job, and change nothing."""
