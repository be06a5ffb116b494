"""``edldist top``: a job in a terminal, live."""
