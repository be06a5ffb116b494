"""The figures of the project, each beside its limit in the same run: ``python -m edldist_benchmarks``."""
