"""The pure decisions: inputs and `now` in, commits and effects out. No I/O, no clock, no chance (checked in CI)."""
