"""Ratings by users of whom ten are known: the form in which a user is heard is searched for (ColdNAS)."""
