"""New users arrive without end: what is fixed was learnt before, what adapts goes on learning."""
