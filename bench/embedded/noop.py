"""The task that is measured: nothing."""


def noop() -> None:
    """Does nothing."""
