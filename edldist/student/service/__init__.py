"""The student's server: sockets, workers and batches on their way."""
