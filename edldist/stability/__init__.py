"""Loss spikes: seen, named, and survived."""
