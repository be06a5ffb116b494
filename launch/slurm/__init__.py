"""Jobs on a Slurm cluster: job scripts, Slurm's commands, and a placer that keeps processes in number."""
