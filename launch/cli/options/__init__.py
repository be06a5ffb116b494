"""What commands have in common: their options, which job they mean, and how much they say."""
