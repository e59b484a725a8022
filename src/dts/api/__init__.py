"""The face to the world: gRPC and HTTP over the services. The only room that speaks protobuf to clients."""
