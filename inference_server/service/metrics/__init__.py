"""What the server tells Prometheus beside the scheduler's figures: calls, connections, GPUs, and the processes that read PDFs."""
