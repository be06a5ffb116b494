"""The student role: what a training script uses, and the rank that owns its label queue."""

from edldist.student import gloo_threads, verdict

gloo_threads.install()  # first: exit handlers run in reverse
verdict.install()
