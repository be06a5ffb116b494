"""The course of a run: what happened, second by second and event by event, and the files that keep it."""
