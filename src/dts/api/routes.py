"""Routes from the google.api.http annotations: which method a request line means, and where its parameters go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import unquote

import grpc

from dts.api.errors import INVALID, Problem, problem
from dts.api.methods import Method

VERBS = ("get", "put", "post", "delete", "patch")


class Route(NamedTuple):
    """One method at one path. `body`: the whole body is the message."""

    method: Method
    verb: str
    template: str
    body: bool

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the fields in the path."""
        return tuple(part[1:-1] for part in self.template.split("/") if part.startswith("{"))


class Match(NamedTuple):
    """A route with the values of its path's parameters."""

    route: Route
    values: dict[str, str]


class Router:
    """Finds routes by verb and raw path. Literal parts win over parameters; an encoded slash is part of a value."""

    def __init__(self, methods: Sequence[Method]) -> None:
        self.routes = tuple(route_of(method) for method in methods)
        self._literal: dict[str, list[Route]] = {}
        self._others: dict[int, list[Route]] = {}
        for route in self.routes:
            if route.parameters:
                self._others.setdefault(route.template.count("/"), []).append(route)
            else:
                self._literal.setdefault(route.template, []).append(route)

    def match(self, verb: str, raw_path: str) -> Match | Problem:
        """The route, or why there is none."""
        candidates = [Match(route, {}) for route in self._literal.get(raw_path, ())]
        if not candidates:
            parts = raw_path.split("/")
            for route in self._others.get(len(parts) - 1, ()):
                try:
                    values = _values(route.template.split("/"), parts)
                except UnicodeDecodeError:
                    return problem(INVALID, "the path holds text that is not UTF-8")
                if values is not None:
                    candidates.append(Match(route, values))
        for found in candidates:
            if found.route.verb == verb:
                return found
        if candidates:
            allowed = ", ".join(sorted({found.route.verb for found in candidates}))
            return problem(grpc.StatusCode.UNIMPLEMENTED, f"{verb} is not for this path: it takes {allowed}", 405)
        return problem(grpc.StatusCode.NOT_FOUND, "no such path; /docs lists them")

    def allowed(self, raw_path: str) -> tuple[str, ...]:
        """The verbs of a path."""
        found = {route.verb for route in self.routes if not isinstance(self.match(route.verb, raw_path), Problem)}
        return tuple(sorted(found))


def route_of(method: Method) -> Route:
    """A method's route."""
    rule = method.rule
    verb = rule.WhichOneof("pattern")
    assert verb in VERBS, f"{method.name} has no HTTP annotation"
    assert rule.body in ("", "*"), f"{method.name}: a body that is one field is not supported"
    return Route(method, verb.upper(), getattr(rule, verb), rule.body == "*")


def _values(template: Sequence[str], parts: Sequence[str]) -> dict[str, str] | None:
    """The parameters' values, or None when the path is another."""
    values = {}
    for expected, part in zip(template, parts, strict=True):
        if expected.startswith("{"):
            if not part:
                return None
            values[expected[1:-1]] = unquote(part, errors="strict")
        elif expected not in (part, unquote(part)):  # a client may encode the colon of a verb
            return None
    return values
