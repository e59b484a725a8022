"""Which workers a demand may go to: 'zone=a, disk!=hdd, tier in (gold|silver), gpu, !spot' (all must hold)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from dts.errors import InvalidArgument

_NAME = r"[A-Za-z0-9._/-]{1,63}"
_VALUE = r"[A-Za-z0-9._/-]{0,63}"
_TERM = re.compile(
    rf"\s*(?:(?P<not>!)\s*(?P<absent>{_NAME})|(?P<label>{_NAME})\s*"
    rf"(?:(?P<op>!=|=|\bin\b)\s*(?:(?P<value>{_VALUE})|\((?P<values>{_VALUE}(?:\|{_VALUE})*)\)))?)\s*"
)
MAX_TERMS = 16


class Term(NamedTuple):
    """One condition on a label."""

    label: str
    values: frozenset[str]  # empty: it must exist
    negated: bool

    def holds(self, labels: Mapping[str, str]) -> bool:
        if not self.values:
            return (self.label in labels) is not self.negated
        return (labels.get(self.label) in self.values) is not self.negated


@lru_cache(maxsize=1_000)
def parse(selector: str) -> tuple[Term, ...]:
    """The terms of a selector. Raises InvalidArgument (field 'selector') naming what was read."""
    if not selector.strip():
        return ()
    texts = selector.split(",")
    if len(texts) > MAX_TERMS:
        raise InvalidArgument("selector", f"has {len(texts)} terms, {MAX_TERMS} at most")
    return tuple(_term(text) for text in texts)


def _term(text: str) -> Term:
    got = _TERM.fullmatch(text)
    if got is None or (got["op"] == "in") != (got["values"] is not None):
        raise InvalidArgument(
            "selector", f"cannot read {text.strip()!r}: 'label=value', '!=', 'in (a|b)', 'label', '!label'"
        )
    if got["absent"]:
        return Term(got["absent"], frozenset(), True)
    if got["op"] is None:
        return Term(got["label"], frozenset(), False)
    values = got["values"].split("|") if got["values"] is not None else [got["value"]]
    return Term(got["label"], frozenset(values), got["op"] == "!=")


def matches(selector: str, labels: Mapping[str, str]) -> bool:
    """Whether a worker's labels satisfy a selector."""
    return all(term.holds(labels) for term in parse(selector))
