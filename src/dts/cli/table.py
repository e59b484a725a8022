"""Tables for people: aligned columns, cut to the width of the terminal; and clean text in them."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence

import click

GAP = "  "
LEAST = 8  # columns that may be cut keep so many places
COLOURS = {
    "COMPLETED": "green",
    "RUNNING": "cyan",
    "PLACED": "cyan",
    "FAILED": "red",
    "LOST": "red",
    "CANCELLED": "yellow",
    "SKIPPED": "yellow",
    "RETRYING": "yellow",
    "PAUSED": "yellow",
    "missing": "red",
    "doubled": "red",
    "unexplained": "red",
}


def clean(text: str) -> str:
    """One line without control characters: what a task or a stranger wrote cannot command the terminal."""
    return "".join(" " if char in "\n\t" else char if _printable(char) else "�" for char in text)


def _printable(char: str) -> bool:
    return char.isprintable() and unicodedata.category(char) not in ("Cf", "Cs", "Co")


def width_of(text: str) -> int:
    """Places that a text takes on a terminal."""
    return sum(_places(char) for char in text) if not text.isascii() else len(text)


def _places(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, width: int) -> str:
    """The text in at most `width` places, its end shown as '…' if need be."""
    if width_of(text) <= width:
        return text
    kept, used = [], 0
    for char in text:
        used += _places(char)
        if used > width - 1:
            break
        kept.append(char)
    return "".join(kept) + "…"


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]], cuttable: Sequence[str] = ()) -> None:
    """Rows under their heads. Only on a terminal, columns named in `cuttable` give way until a line fits."""
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max([width_of(head), *(width_of(row[i]) for row in cells)]) for i, head in enumerate(heads)]
    if sys.stdout.isatty():
        _fit(widths, [i for i, head in enumerate(heads) if head in cuttable], shutil.get_terminal_size().columns)
    click.echo(_line(heads, widths, plain=True))
    for row in cells:
        click.echo(_line(row, widths))


def _fit(widths: list[int], candidates: list[int], room: int) -> None:
    excess = sum(widths) + len(GAP) * (len(widths) - 1) - room
    while excess > 0 and candidates:
        widest = max(candidates, key=lambda i: widths[i])
        if widths[widest] <= LEAST:
            return
        widths[widest] -= 1
        excess -= 1


def _line(cells: Sequence[str], widths: Sequence[int], *, plain: bool = False) -> str:
    parts = []
    for i, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        shown = cut(cell, width)
        padding = "" if i == len(widths) - 1 else " " * (width - width_of(shown))
        parts.append((shown if plain else paint(shown)) + padding)
    return GAP.join(parts).rstrip()


def paint(text: str) -> str:
    """A status in its colour; click takes it away where nobody sees it, and NO_COLOR everywhere."""
    colour = None if os.environ.get("NO_COLOR") else COLOURS.get(text)
    return click.style(text, fg=colour) if colour else text


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Names and values, one a line; those without a value are left out."""
    shown = [(name, clean(value)) for name, value in facts if value]
    width = max((len(name) for name, _ in shown), default=0) + 1
    for name, value in shown:
        click.echo(f"{name + ':':<{width}}  {paint(value)}")
