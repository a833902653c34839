"""The Open Inference Protocol over gRPC: the optional transport of the extra `grpc`, imported only when configured."""
