"""Tuning a job: a synthetic response surface that tells whether it works, and a job that is tuned."""
