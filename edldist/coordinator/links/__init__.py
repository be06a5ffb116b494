"""Who serves whom, and which worker was told so. Pure."""
