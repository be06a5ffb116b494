"""``edldist tune``: many short jobs on one fleet of teachers, to find the settings of a job."""
