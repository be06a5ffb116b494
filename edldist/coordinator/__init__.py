"""The control process: who is here and who serves whom. Soft state; no tensors, no torch."""
