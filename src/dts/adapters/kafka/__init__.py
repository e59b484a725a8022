"""Ledger and JobFeed over Kafka: a shard is one partition number of four topics. See docs/operations/kafka.md."""
