"""Commands that are one process of a job: what engines and launchers start."""
