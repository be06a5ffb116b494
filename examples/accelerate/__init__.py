"""Digits of which few have labels: a perceptron distilled in a loop of Accelerate's."""
