"""Stories of the protocol, one a file: commands, and the trace that each has to leave.

``python -m tests.scenarios`` compares; ``--rewrite`` writes down what happens now, to be reviewed as a diff.
"""
