"""Random cron expressions over the whole grammar, and the zones and instants the property tests draw from."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.unit.schedule.oracle import MONTHS, WEEKDAYS

# Half-hour shifts, skipped dates, two-hour and three-hour changes, Ramadan pauses, negative daylight time, and ordinary places.
_ZONES = """
UTC Africa/Cairo Africa/Casablanca Africa/El_Aaiun Africa/Johannesburg Africa/Windhoek America/Anchorage
America/Asuncion America/Bogota America/Caracas America/Chicago America/Denver America/Godthab
America/Halifax America/Havana America/Los_Angeles America/Mexico_City America/Miquelon
America/Montevideo America/New_York America/Santiago America/Sao_Paulo America/St_Johns Antarctica/Casey
Antarctica/Troll Antarctica/Vostok Asia/Amman Asia/Baghdad Asia/Beirut Asia/Gaza Asia/Jerusalem
Asia/Kathmandu Asia/Kolkata Asia/Pyongyang Asia/Shanghai Asia/Tehran Asia/Tokyo Atlantic/Azores
Australia/Adelaide Australia/Lord_Howe Australia/Sydney Europe/Berlin Europe/Dublin Europe/Istanbul
Europe/London Europe/Moscow Europe/Volgograd Pacific/Apia Pacific/Auckland Pacific/Chatham
Pacific/Fakaofo Pacific/Kiritimati Pacific/Kwajalein Pacific/Norfolk
"""
ZONES = tuple(_ZONES.split())

_MONTH_NAMES = {value: name for name, value in MONTHS.items()}
_WEEKDAY_NAMES = {value: name for name, value in WEEKDAYS.items()} | {7: "Sun"}


@st.composite
def ranges(draw: st.DrawFn, low: int, high: int, names: dict[int, str] | None = None) -> str:
    """One element without specials: `5`, `3-9`, `*/7`, `4/15`, `mon-fri/2`."""

    def shown(value: int) -> str:
        return names[value] if names and draw(st.booleans()) else str(value)

    form = draw(st.integers(0, 5))
    step = draw(st.integers(1, max(2, (high - low + 1) // 2)))
    first = draw(st.integers(low, high))
    last = draw(st.integers(first, high))
    if form <= 1:
        return shown(first)
    if form == 2:
        return f"{shown(first)}-{shown(last)}"
    if form == 3:
        return f"{shown(first)}-{shown(last)}/{step}"
    return f"*/{step}" if form == 4 else f"{shown(first)}/{step}"


def fields(low: int, high: int, names: dict[int, str] | None = None, stars: int = 2) -> st.SearchStrategy[str]:
    lists = st.lists(ranges(low, high, names), min_size=1, max_size=4).map(",".join)
    return st.one_of(*[st.just("*")] * stars, lists, ranges(low, high, names))


def _day_specials() -> st.SearchStrategy[str]:
    back = st.integers(0, 8)
    return st.one_of(
        st.just("L"),
        st.just("LW"),
        back.map("L-{}".format),
        back.map("L-{}W".format),
        st.integers(1, 31).map("{}W".format),
    )


def _weekday_specials() -> st.SearchStrategy[str]:
    day = st.integers(0, 7)
    return st.one_of(day.map("{}L".format), st.tuples(day, st.integers(1, 5)).map(lambda pair: f"{pair[0]}#{pair[1]}"))


def days(specials: bool = True) -> st.SearchStrategy[str]:
    base = fields(1, 31, stars=3)
    if not specials:
        return base
    mixed = st.lists(st.one_of(_day_specials(), ranges(1, 31)), min_size=1, max_size=3).map(",".join)
    return st.one_of(base, base, mixed, st.just("?"))


def weekdays(specials: bool = True) -> st.SearchStrategy[str]:
    base = fields(0, 7, _WEEKDAY_NAMES, stars=3)
    if not specials:
        return base
    mixed = st.lists(st.one_of(_weekday_specials(), ranges(0, 7)), min_size=1, max_size=3).map(",".join)
    return st.one_of(base, base, mixed, st.just("?"))


@st.composite
def expressions(draw: st.DrawFn, *, seconds: bool = False, years: bool = False, specials: bool = True) -> str:
    """A whole expression of five fields, or six with seconds, or seven with years."""
    words = [
        draw(st.one_of(fields(0, 59), st.integers(0, 59).map(str))),
        draw(fields(0, 23)),
        draw(days(specials)),
        draw(fields(1, 12, _MONTH_NAMES, stars=4)),
        draw(weekdays(specials)),
    ]
    if seconds or years:
        words.insert(0, draw(st.one_of(st.just("0"), st.integers(0, 59).map(str), fields(0, 59, stars=1))))
    if years:
        words.append(draw(st.one_of(st.just("*"), ranges(1990, 2040))))
    return " ".join(words)


def any_expression() -> st.SearchStrategy[str]:
    return st.one_of(expressions(), expressions(), expressions(seconds=True), expressions(years=True))


def policies() -> st.SearchStrategy[tuple[str, str]]:
    """(gap, fold), the defaults included."""
    return st.tuples(st.sampled_from(["", "shift", "skip"]), st.sampled_from(["", "first", "second", "both"]))
