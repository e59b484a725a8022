"""Tables: alignment, cutting, and that nothing in them commands the terminal."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dts.cli import table
from dts.cli.table import clean, cut, print_facts, print_table, width_of


@given(st.text())
def test_clean_text_is_one_printable_line(text: str) -> None:
    shown = clean(text)
    assert "\n" not in shown
    assert "\x1b" not in shown
    assert all(char.isprintable() for char in shown)


@given(st.text(), st.integers(1, 40))
def test_cut_keeps_within_the_width(text: str, width: int) -> None:
    assert width_of(cut(clean(text), width)) <= width


def test_what_fits_is_not_cut() -> None:
    assert cut("日本", 4) == "日本"
    assert cut("日本語", 4) == "日…"


def test_columns_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["ID", "NAME"], [["1", "日本"], ["22", "x\x1b[31m\ny"]])
    assert capsys.readouterr().out == "ID  NAME\n1   日本\n22  x�[31m y\n"


def test_only_a_terminal_cuts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    row = ["0123456789", "n" * 60, "end"]
    print_table(["ID", "NAME", "LAST"], [row], cuttable=["NAME"])
    assert "n" * 60 in capsys.readouterr().out
    monkeypatch.setattr(table.sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(table.shutil, "get_terminal_size", lambda: os.terminal_size((40, 20)))
    print_table(["ID", "NAME", "LAST"], [row], cuttable=["NAME"])
    lines = capsys.readouterr().out.splitlines()
    assert max(width_of(line) for line in lines) <= 40
    assert lines[1].startswith("0123456789  nnn")
    assert lines[1].endswith("…  end")


def test_facts_without_a_value_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts([("Name", "a"), ("Nothing", ""), ("Longer name", "b")])
    assert capsys.readouterr().out == "Name:         a\nLonger name:  b\n"
