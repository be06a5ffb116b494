"""Handwritten digits: a convolutional teacher distilled into a student at least 20 times smaller."""
