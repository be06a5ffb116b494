"""Who this process is among the ranks of its group, and what they agree on."""
