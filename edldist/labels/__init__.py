"""Codecs: how labels are packed for the wire."""
