"""The platforms whose workers we replace: each opened as its settings say, and what is asked of one or told of it beside its jobs."""
