"""Weights that change while others use them: averaged, published version by version, and followed."""
