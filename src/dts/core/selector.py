"""Which workers a demand may go to: 'zone=a, disk!=hdd, tier in (gold, silver), arch notin (arm), gpu, !spot' (all must hold).

Rules:
- As Kubernetes reads them: a worker without the label satisfies '!=' and 'notin'; 'label' asks that there is one, '!label' that
  there is none.
- A selector is checked where it comes in (`parse` raises); what is stored can be read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple, NoReturn

from dts.errors import InvalidArgument

MAX_TERMS = 16
MAX_VALUES = 64  # of one term
NAME_LENGTH = 63  # of a label and of a value

_NAME = re.compile(r"[A-Za-z0-9._/-]+")
_VALUE = re.compile(r"[A-Za-z0-9._/-]*")
_OPERATOR = re.compile(r"!=|=|(?:notin|in)(?![A-Za-z0-9._/-])")
_SPACE = re.compile(r"\s*")
_MORE = re.compile(r"[,|]")


class Term(NamedTuple):
    """One condition on a label."""

    label: str
    values: frozenset[str]  # empty: it must exist
    negated: bool

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether a worker's labels satisfy it."""
        if not self.values:
            return (self.label in labels) is not self.negated
        return (labels.get(self.label) in self.values) is not self.negated


@lru_cache(maxsize=1_000)
def parse(selector: str) -> tuple[Term, ...]:
    """The terms of a selector. Raises InvalidArgument (field 'selector') with the position and what could stand there."""
    reader = _Reader(selector)
    if reader.at_end():
        return ()
    terms = [reader.term()]
    while not reader.at_end():
        reader.take(",", "a comma and the next term, or the end")
        terms.append(reader.term())
    if len(terms) > MAX_TERMS:
        raise InvalidArgument("selector", f"has {len(terms)} terms, {MAX_TERMS} at most")
    return tuple(terms)


class _Reader:
    """Reads a selector from left to right; `at` is where it stands."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def at_end(self) -> bool:
        """Whether only space is left."""
        self._skip()
        return self.at == len(self.text)

    def term(self) -> Term:
        """One term."""
        self._skip()
        if self.text.startswith("!", self.at) and not self.text.startswith("!=", self.at):
            self.at += 1
            return Term(self._name("a label that must not be there"), frozenset(), True)
        label = self._name("a label, or '!' and a label")
        self._skip()
        operator = _OPERATOR.match(self.text, self.at)
        if operator is None:
            if self.at < len(self.text) and self.text[self.at] != ",":
                self._refuse("=, !=, in (...), notin (...), a comma, or the end")
            return Term(label, frozenset(), False)
        self.at = operator.end()
        if operator[0] in ("in", "notin"):
            return Term(label, self._values(), operator[0] == "notin")
        return Term(label, frozenset((self._value(),)), operator[0] == "!=")

    def take(self, sign: str, expected: str) -> None:
        """One sign. Raises InvalidArgument when another one stands there."""
        self._skip()
        if not self.text.startswith(sign, self.at):
            self._refuse(expected)
        self.at += len(sign)

    def _values(self) -> frozenset[str]:
        self.take("(", "the values in parentheses, as in 'zone in (a, b)'")
        values = [self._value()]
        self._skip()
        while (more := _MORE.match(self.text, self.at)) is not None:
            self.at = more.end()
            values.append(self._value())
            self._skip()
            if len(values) > MAX_VALUES:
                raise InvalidArgument("selector", f"has over {MAX_VALUES} values in one term")
        self.take(")", "a comma and the next value, or ')'")
        return frozenset(values)

    def _name(self, expected: str) -> str:
        self._skip()
        found = _NAME.match(self.text, self.at)
        if found is None:
            self._refuse(expected)
        return self._word(found)

    def _value(self) -> str:
        self._skip()
        found = _VALUE.match(self.text, self.at)
        assert found is not None, "a value may be empty"
        return self._word(found)

    def _word(self, found: re.Match[str]) -> str:
        if len(found[0]) > NAME_LENGTH:
            raise InvalidArgument(
                "selector", f"position {self.at + 1}: {found[0][:20]!r}... is over {NAME_LENGTH} characters"
            )
        self.at = found.end()
        return found[0]

    def _skip(self) -> None:
        space = _SPACE.match(self.text, self.at)
        assert space is not None
        self.at = space.end()

    def _refuse(self, expected: str) -> NoReturn:
        seen = repr(self.text[self.at : self.at + 20]) if self.at < len(self.text) else "the end"
        raise InvalidArgument("selector", f"position {self.at + 1}: {seen} where there should be {expected}")


def label(name: str) -> bool:
    """Whether a label may have this name."""
    return len(name) <= NAME_LENGTH and _NAME.fullmatch(name) is not None


def matches(selector: str, labels: Mapping[str, str]) -> bool:
    """Whether a worker's labels satisfy a selector."""
    return all(term.holds(labels) for term in parse(selector))
