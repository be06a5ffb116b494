"""What `accelerate` and `lightning` share: digits of which a student knows 50 labels, and a teacher."""
