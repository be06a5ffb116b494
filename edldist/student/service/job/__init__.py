"""What a student and the job's coordinator tell each other."""
