"""A whole job on a simulated clock and network: one seed, one run, every interleaving and fault chosen by it.

``python -m tests.simulation --seeds N`` runs it; docs/simulation.md says what is simulated and what is not.
"""
