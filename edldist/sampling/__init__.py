"""Which samples come next, how far the loop is, and the random numbers of reading."""
