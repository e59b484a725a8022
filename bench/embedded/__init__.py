"""The embedded server, measured as a whole: real processes, a real file, synchronous FULL."""
