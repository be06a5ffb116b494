"""One node of a student's process group: its agent, where nodes meet, and who looks after the ranks."""
