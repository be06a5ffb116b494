"""Old verse: a small language model distilled in Hugging Face's Trainer."""
