"""gRPC over HTTP/2 on the event loop: the server's own transport.

grpcio's servers take 220 to 400 µs of processor time for an empty call, more than all that this server does for a small request beside it;
this one takes 15 to 50 (see docs/performance/serving.md). What servicers see is grpc.aio's interface.
Sources: RFC 9113 (HTTP/2), RFC 7541 (HPACK, read by the library hpack), gRPC over HTTP/2
(https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
"""
