"""What the scheduler counts and times: for Prometheus, under Triton's names too, and for the protocol's statistics."""
