"""Trackers: where people compare trainings (TensorBoard, Weights & Biases, MLflow)."""
