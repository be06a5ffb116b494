"""Distillation inside the training loops of other libraries: a module for each (docs/integrations.md).

Each module needs its library, which is an extra of the package; nothing here is imported by the rest
of edldist, and importing one module imports no other library than its own.
"""
