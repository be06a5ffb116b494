"""What the loop gets of labels that came."""
