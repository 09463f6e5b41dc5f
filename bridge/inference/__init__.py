"""The client of the inference server; alone in importing grpc and its stubs."""
