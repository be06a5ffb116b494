"""A small classifier of digits, distilled in Lightning's Trainer."""
