"""What a job leaves behind: its folder, its events, its figures."""
