"""Hostile input for everything that takes any: ``python -m tests.fuzz``."""
