"""A teacher that is an HTTP inference engine: what is asked of it, and labels made of its answers."""
