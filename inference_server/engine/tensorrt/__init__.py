"""TensorRT as an engine: what is built for which shapes, by processes of their own, how it is kept, and how it runs."""
