"""The compute thread's side of a worker: forward passes, on their way to the device and back."""
