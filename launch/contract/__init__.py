"""What edldist asks of an engine that places processes, and where it finds a job again."""
