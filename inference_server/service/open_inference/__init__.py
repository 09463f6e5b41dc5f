"""The Open Inference Protocol with Triton's extensions: its servicer, and what a request for tensors is read from and answered with."""
