"""The ports over a Cassandra keyspace: the book of record for jobs, and for history a projection."""
