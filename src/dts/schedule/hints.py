"""What a schedule does that its writer may not expect: fewer instants than it seems, other dialects, changes of the clock."""

from __future__ import annotations

from dts.schedule.cron import EVERY_HOUR, CronSchedule
from dts.schedule.crontext import Cron
from dts.schedule.days import ALL_DOM, ALL_WEEKDAYS, bits
from dts.schedule.fields import DAY, HOUR, MINUTE, MONTH, SECOND, WEEKDAY, Field
from dts.schedule.instants import format_minute, format_time
from dts.schedule.words import MONTH_NAMES, listing, ordinal

_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def cron_hints(schedule: CronSchedule, after: int) -> tuple[str, ...]:
    """The hints for a cron schedule, those about the clock for the next changes after an instant in ms."""
    cron = schedule.cron
    found = _form_hints(cron) + _step_hints(cron) + _date_hints(cron) + _weekday_hints(cron)
    return tuple(found + _clock_hints(schedule, after))


def _form_hints(cron: Cron) -> list[str]:
    hints = []
    if len(cron.fields) == 6:
        hints.append(
            "6 fields: the first is seconds (EventBridge and Temporal read minutes first and a year at the end)"
        )
    elif len(cron.fields) == 7:
        hints.append("7 fields: the first is seconds, the last years")
    minutes, hours = cron.mask(MINUTE, 0).bit_count(), cron.mask(HOUR, 0)
    if minutes == 60 and hours != EVERY_HOUR and cron.mask(SECOND, 1).bit_count() == 1:
        hints.append("* in the minute field: it fires 60 times in each of its hours; for once an hour write 0")
    elif minutes == 60 and cron.mask(SECOND, 1).bit_count() == 60 and hours != EVERY_HOUR:
        hints.append("* in the minute and second fields: it fires 3600 times in each of its hours")
    return hints


def _step_hints(cron: Cron) -> list[str]:
    hints = []
    for field in cron.fields:
        size = {SECOND.name: 60, MINUTE.name: 60, HOUR.name: 24}.get(field.kind.name, 0)
        if not field.text.startswith("*/") or "," in field.text:
            continue
        step = int(field.text[2:])
        whole = {SECOND.name: "minute", MINUTE.name: "hour", HOUR.name: "day"}.get(field.kind.name, "")
        if size and step >= size:
            unit = field.kind.name[0]
            hints.append(
                f"{field.text} in the {field.kind.name} field matches 0 alone; for a period write @every {step}{unit}"
            )
        elif size and size % step:
            last = (size - 1) // step * step
            hints.append(
                f"{field.text} starts anew every {whole}: after {last} comes 0, {size - last} {field.kind.name}s later"
            )
        elif field.kind is DAY and step > 1:
            hints.append(f"{field.text} in the day of month starts anew on the 1st of every month")
    return hints


def _date_hints(cron: Cron) -> list[str]:
    day, weekday = cron.field(DAY), cron.field(WEEKDAY)
    if day is None or weekday is None or not (day.star or weekday.star) or day.star:
        # With a day of week beside it the date is not the only chance; `*` has no missing dates.
        return []
    wanted = bits(day.mask) + bits(day.nearest)
    if not wanted or min(wanted) < 29:
        return [] if not wanted else _some_missing([value for value in wanted if value > 28], cron)
    return _some_missing(wanted, cron)


def _some_missing(wanted: list[int], cron: Cron) -> list[str]:
    hints = []
    months = bits(cron.mask(MONTH, 0))
    for value in sorted(set(wanted)):
        without = [MONTH_NAMES[month - 1] for month in months if _LONGEST[month - 1] < value]
        if without:
            hints.append(
                f"the {ordinal(value)}: {listing(without)} {'have' if len(without) > 1 else 'has'} none and runs nothing then"
            )
        if value == 29 and 2 in months:
            hints.append("29 February: only in leap years")
    return hints if len(wanted) < 3 else []


def _weekday_hints(cron: Cron) -> list[str]:
    day, weekday = cron.field(DAY), cron.field(WEEKDAY)
    assert day is not None, "every form has a day of month"
    assert weekday is not None, "every form has a day of week"
    hints = []
    if _restricted(day, ALL_DOM) and _restricted(weekday, ALL_WEEKDAYS):
        if day.star or weekday.star:
            hints.append("day of month and day of week must both match, because one of them begins with * (crontab(5))")
        else:
            hints.append(
                "it runs on days that match the day of month or the day of week (crontab(5)), not only on those that match both"
            )
    if any(code // 8 == 5 for code in bits(weekday.nth)):
        hints.append("#5: a month without a fifth one runs nothing")
    for element in weekday.text.split(","):
        first, _, step = element.partition("/")
        if step.isdigit() and int(step) > 1 and first.isalnum():
            hints.append(f"{element} in the day of week ends on Saturday")
    quartz = len(cron.fields) > 5 or day.special or weekday.special or "?" in (day.text, weekday.text)
    if quartz and any(char.isdigit() for char in _without_counts(weekday.text)):
        hints.append(
            "days of the week are 0 or 7 = Sunday, 1 = Monday; Quartz reads 1 as Sunday: names mean the same everywhere"
        )
    return hints


def _without_counts(text: str) -> str:
    """A day of week field without its `#n` and `/n`, whose numbers are no days."""
    return ",".join(element.partition("#")[0].partition("/")[0] for element in text.split(","))


def _restricted(field: Field, everything: int) -> bool:
    return field.special or field.mask & everything != everything


def _clock_hints(schedule: CronSchedule, after: int) -> list[str]:
    """What happens at the next gap and the next fold that swallow or repeat one of its times of day."""
    hints: dict[str, str] = {}
    for instant, before, later in schedule.zone.changes_after(after, 8):
        if not schedule.low <= instant <= schedule.high:
            continue
        kind = "gap" if later > before else "fold"
        begin, end = sorted((instant // 1000 + before, instant // 1000 + later))
        wall = schedule.wall_match(begin, end)
        if (
            wall is None
            or kind in hints
            or (schedule.every_hour and schedule.gap == "skip" and schedule.fold == "both")
        ):
            continue  # an hourly schedule that follows elapsed time: nobody expects anything else
        hints[kind] = _gap_hint(schedule, wall, end, begin) if kind == "gap" else _fold_hint(schedule, wall)
    return list(hints.values())


def _gap_hint(schedule: CronSchedule, wall: int, end: int, begin: int) -> str:
    text = f"{format_minute(wall)} does not exist in {schedule.zone.name}"
    if schedule.gap == "shift" and schedule.shifts(end - begin):
        return f"{text}: it runs at {format_time(end)}, right after the gap (gap = shift)"
    return f"{text}: nothing runs in its place ({'gap = skip' if schedule.gap == 'skip' else 'the date is missing'})"


def _fold_hint(schedule: CronSchedule, wall: int) -> str:
    which = {"first": "the first time alone", "second": "the second time alone", "both": "both times"}[schedule.fold]
    return f"{format_minute(wall)} occurs twice in {schedule.zone.name}: it runs {which} (fold = {schedule.fold})"
