"""What a teacher is made of, from the factory and its weights to the outputs that are labels."""
