"""Benchmarks of the cluster: Kafka, Cassandra and the services beside each other on this machine."""
