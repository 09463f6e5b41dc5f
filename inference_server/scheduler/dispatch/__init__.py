"""From an admitted request to its run: who waits, whose turn it is, what becomes a batch, and the instances that run it."""
