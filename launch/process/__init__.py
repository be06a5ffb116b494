"""What any process of the launcher does with itself: exit codes, signals, parents, places to import from."""
