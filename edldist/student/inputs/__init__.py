"""What teachers see of a batch."""
