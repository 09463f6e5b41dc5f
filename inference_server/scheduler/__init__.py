"""The scheduler: admits requests, queues and batches them, and runs the batches on engines."""
