"""The I/O thread's side of a worker: whom it serves, what it asks for and what it holds."""
