"""Benchmarks: `make bench` prints tables and writes JSON. Speed is shown here, never in a timed test."""
