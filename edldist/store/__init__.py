"""Labels that were kept, by what made them: in memory, and in files for other tools too (docs/store.md)."""
