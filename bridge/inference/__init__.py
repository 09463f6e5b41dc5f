"""The client of the inference server. Alone in importing grpc and the stubs."""
