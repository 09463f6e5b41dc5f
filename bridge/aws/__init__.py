"""What the AWS adapters share: access, calls in threads, batches, names, payloads. Alone in importing boto3, and only once it is called."""
