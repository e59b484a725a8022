"""What every room of the tests shares."""
