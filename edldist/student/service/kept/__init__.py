"""Labels of a student's teachers that are kept in a store."""
