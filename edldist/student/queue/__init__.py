"""The label queue and what decides beside it: pure, no tensors, no sockets."""
