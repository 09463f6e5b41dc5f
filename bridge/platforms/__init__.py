"""The platforms whose workers we replace: each opened as its settings say, and what is asked of one or told of it beside its jobs.

The slides' platform needs no more than a handler and its bucket, and `served` makes those. No module here imports another.
"""
