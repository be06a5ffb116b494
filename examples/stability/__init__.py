"""A click model whose stream changes halfway, and at which learning rates it survives that."""
