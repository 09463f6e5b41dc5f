"""The gRPC face: server lifecycle, interceptors, one thin servicer per service. Alone in importing grpc."""
