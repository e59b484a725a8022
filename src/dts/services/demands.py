"""What jobs may demand of workers, checked before it is stored."""

from __future__ import annotations

from dts.core.selector import label, parse
from dts.errors import InvalidArgument


def check_selector(selector: str, field: str) -> str:
    """The selector itself. Raises InvalidArgument naming the field and what could not be read."""
    try:
        parse(selector)
    except InvalidArgument as error:
        raise InvalidArgument(field, error.problem) from None
    return selector


def check_label(name: str, field: str) -> str:
    """The name of a label, or ''. Raises InvalidArgument naming the field."""
    if name and not label(name):
        raise InvalidArgument(field, f"{name[:80]!r} is no name of a label")
    return name
