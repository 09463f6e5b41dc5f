"""The tables of the platforms whose workers we replace: all SQL on them, and the values of their rows."""
