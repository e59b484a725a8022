"""A cron expression as an English sentence."""

from __future__ import annotations

from dts.schedule.crontext import Cron


def cron_sentence(cron: Cron, zone: str) -> str:
    """The sentence of an expression in a zone."""
    return " ".join(field.text for field in cron.fields) + f", in {zone}"
