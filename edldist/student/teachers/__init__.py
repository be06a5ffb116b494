"""Whose labels a loop asks for, and in which form."""
