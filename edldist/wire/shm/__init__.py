"""Tensors through shared memory, for processes on one host."""
