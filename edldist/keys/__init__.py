"""Keys of a job: who may be what, and how it is proven (docs/security.md)."""
