"""One whole job: its file, its processes, its run."""
