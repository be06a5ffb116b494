"""What the examples' sweeps and preparations share: jobs, kept results, figures and gates."""
