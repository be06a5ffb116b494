"""What a batch is made of, and whose memory that is."""
