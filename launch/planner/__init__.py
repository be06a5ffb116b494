"""``edldist plan``: how many workers a job deserves, by the logs of its runs."""
