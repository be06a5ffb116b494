"""What ``package.module:factory`` of a job file names: found, called, and words where that fails."""
