"""How many workers every teacher group should have. Pure."""
