"""The launcher: one command line for every role, and whole jobs on this machine."""
