"""Which pages in a browser may call: by default only those of this machine."""

from __future__ import annotations

import re
from collections.abc import Sequence

_LOOPBACK = re.compile(r"https?://(?:localhost|127\.0\.0\.1|\[::1\])(?::\d{1,5})?")
_EXPOSED = "Content-Type"
_MAX_AGE_S = 600


class Origins:
    """`others`: allowed beside those of this machine; '*' allows every page."""

    def __init__(self, others: Sequence[str] = ()) -> None:
        self._all = "*" in others
        self._others = frozenset(others)

    def allows(self, origin: str) -> bool:
        """Whether a page of this origin may read our answers."""
        return self._all or origin in self._others or _LOOPBACK.fullmatch(origin) is not None

    def headers(self, origin: str) -> dict[str, str]:
        """For an answer to a page."""
        if not origin or not self.allows(origin):
            return {"Vary": "Origin"}
        return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": _EXPOSED, "Vary": "Origin"}

    def preflight(self, origin: str, wanted: str, verbs: Sequence[str]) -> dict[str, str]:
        """For an answer to OPTIONS."""
        allowed = {"Allow": ", ".join([*verbs, "OPTIONS"])}
        if not origin or not self.allows(origin):
            return {**allowed, "Vary": "Origin"}
        return {
            **allowed,
            **self.headers(origin),
            "Access-Control-Allow-Methods": ", ".join(verbs),
            "Access-Control-Allow-Headers": wanted or "Content-Type, Accept, Authorization",
            "Access-Control-Max-Age": str(_MAX_AGE_S),
        }
