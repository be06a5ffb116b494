"""A batch on its way, from being read to having its labels."""
