"""The model repository in Triton's layout, and the builders of the built-in models."""
