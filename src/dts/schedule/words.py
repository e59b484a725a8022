"""A cron expression as an English sentence, made from its bits: what it says is what the engine does."""

from __future__ import annotations

from dts.schedule import civil
from dts.schedule.crontext import Cron
from dts.schedule.days import ALL_DOM, ALL_MONTHS, ALL_WEEKDAYS, bits
from dts.schedule.fields import DAY, HOUR, MINUTE, MONTH, SECOND, WEEKDAY, YEAR, Field

MONTH_NAMES = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
WEEKDAY_NAMES = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_NTH = ("", "first", "second", "third", "fourth", "fifth")
_MAX_TIMES = 6  # times of day that are listed one by one
_ALL_SIXTY = (1 << 60) - 1
_ALL_HOURS = (1 << 24) - 1


def cron_sentence(cron: Cron, zone: str) -> str:
    """'At 02:30 on Monday to Friday, Europe/Paris time'."""
    parts = [_time(cron), *(_one_date(cron) or (_days(cron), _months(cron))), _years(cron)]
    text = " ".join(part for part in parts if part)
    return f"{text[0].upper()}{text[1:]}, {zone} time"


def ordinal(number: int) -> str:
    """'1st', '22nd', '13th'."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def listing(words: list[str], last: str = "and") -> str:
    """'a', 'a and b', 'a, b and c'."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def _ranges(values: list[int], names: tuple[str, ...] | None = None) -> str:
    """Values with runs of three or more joined: '1 to 5 and 9'."""
    pieces: list[str] = []
    run: list[int] = []
    for value in [*values, -1]:
        if run and value != run[-1] + 1:
            shown = [names[v] if names else str(v) for v in run]
            pieces += [f"{shown[0]} to {shown[-1]}"] if len(run) > 2 else shown
            run = []
        run.append(value)
    return listing(pieces)


def _step(values: list[int], size: int) -> int:
    """The distance of values that are evenly spread over the whole field, or 0."""
    step = values[1] - values[0] if len(values) > 1 else 0
    even = step > 1 and values == list(range(values[0], size, step)) and values[0] < step
    return step if even else 0


def _time(cron: Cron) -> str:
    seconds, minutes, hours = cron.mask(SECOND, 1), cron.mask(MINUTE, 0), cron.mask(HOUR, 0)
    times = seconds.bit_count() * minutes.bit_count() * hours.bit_count()
    if times <= _MAX_TIMES:
        shown = [
            f"{h:02d}:{m:02d}" + (f":{s:02d}" if seconds != 1 else "")
            for h in bits(hours)
            for m in bits(minutes)
            for s in bits(seconds)
        ]
        return f"at {listing(shown)}"
    text = _within(seconds, minutes)
    if hours == _ALL_HOURS:
        return text
    values = bits(hours)
    if seconds == minutes == 1:
        return _full_hours(values)
    if step := _step(values, 24):
        return f"{text.removesuffix(' of every hour')} of every {ordinal(step)} hour from {values[0]:02d}:00"
    if values == list(range(values[0], values[-1] + 1)):
        return f"{text} from {values[0]:02d}:00 to {values[-1]:02d}:59"
    return f"{text} in the hours {_ranges(values)}"


def _full_hours(values: list[int]) -> str:
    """Many full hours of the day."""
    if step := _step(values, 24):
        return f"every {ordinal(step)} hour from {values[0]:02d}:00"
    if values == list(range(values[0], values[-1] + 1)):
        return f"every hour from {values[0]:02d}:00 to {values[-1]:02d}:00"
    return f"at {listing([f'{value:02d}:00' for value in values])}"


def _within(seconds: int, minutes: int) -> str:
    """What happens within an hour."""
    if seconds == 1:
        return _units(minutes, "minute", "hour")
    if minutes == _ALL_SIXTY:
        return _units(seconds, "second", "minute")
    of_minute = _units(seconds, "second", "minute")
    values = bits(minutes)
    step = _step(values, 60)
    if step:
        return f"{of_minute} of every {ordinal(step)} minute" + (f" from minute {values[0]}" if values[0] else "")
    return f"{of_minute}, in minute{'s' if len(values) > 1 else ''} {_ranges(values)} of the hour"


def _units(mask: int, unit: str, whole: str) -> str:
    if mask == _ALL_SIXTY:
        return f"every {unit}"
    values = bits(mask)
    if values == [0]:
        return f"at the start of every {whole}"
    step = _step(values, 60)
    if step and 60 % step == 0:
        return f"every {step} {unit}s" + (f" from {unit} {values[0]} on" if values[0] else "")
    if step:
        return f"at every {ordinal(step)} {unit} of the {whole} from {unit} {values[0]}"
    return f"at {unit}{'s' if len(values) > 1 else ''} {_ranges(values)} of every {whole}"


def _days(cron: Cron) -> str:
    day, weekday = cron.field(DAY), cron.field(WEEKDAY)
    assert day is not None, "every form has a day of month"
    assert weekday is not None, "every form has a day of week"
    every_date = day.mask & ALL_DOM == ALL_DOM
    every_weekday = weekday.mask & ALL_WEEKDAYS == ALL_WEEKDAYS
    either = not (day.star or weekday.star)
    if (every_date and every_weekday) or (either and (every_date or every_weekday)):
        often = cron.mask(MINUTE, 0).bit_count() * cron.mask(HOUR, 0).bit_count() > _MAX_TIMES
        return "" if often or cron.mask(MONTH, 0) != ALL_MONTHS else "every day"
    if every_date:
        return f"on {_weekday_words(weekday)}"
    whole = cron.mask(MONTH, 0) == ALL_MONTHS
    dates = f"on {_date_words(day, ' of every month' if whole else '')}"
    if every_weekday:
        return dates
    if either:
        return f"{dates} and also on {_weekday_words(weekday)}"
    return f"{dates}, if that is {_weekday_words(weekday, 'or')}"


def _one_date(cron: Cron) -> tuple[str, ...]:
    """'on 29 February' for a single date of the year."""
    day, weekday, months = cron.field(DAY), cron.field(WEEKDAY), bits(cron.mask(MONTH, 0))
    if day is None or weekday is None or not weekday.star or weekday.mask != ALL_WEEKDAYS or day.special:
        return ()
    dates = bits(day.mask)
    return (f"on {dates[0]} {MONTH_NAMES[months[0] - 1]}",) if len(dates) == len(months) == 1 else ()


def _date_words(day: Field, suffix: str) -> str:
    words = []
    values = bits(day.mask)
    if values:
        if step := _step([v - 1 for v in values], 31):
            words.append(f"every {ordinal(step)} day{suffix} from the {ordinal(values[0])}")
            suffix = ""
        elif len(values) > 2 and values == list(range(values[0], values[-1] + 1)):
            words.append(f"the {ordinal(values[0])} to the {ordinal(values[-1])}")
        else:
            words += [f"the {ordinal(value)}" for value in values]
    words += [_from_end(back) for back in bits(day.last)]
    words += [f"the weekday nearest to the {ordinal(value)}" for value in bits(day.nearest)]
    words += [
        f"the weekday nearest to {_from_end(back)}" if back else "the last weekday (Monday to Friday)"
        for back in bits(day.last_nearest)
    ]
    return listing(words) + suffix


def _from_end(back: int) -> str:
    if back == 0:
        return "the last day"
    return f"the day {back} day{'s' if back > 1 else ''} before the last"


def _weekday_words(weekday: Field, last: str = "and") -> str:
    words = []
    values = bits(weekday.mask & ALL_WEEKDAYS)
    if values == [0, 5, 6]:
        words.append("Friday to Sunday")
    elif values:
        shown = [WEEKDAY_NAMES[v] for v in values]
        run = len(values) > 2 and values == list(range(values[0], values[-1] + 1))
        words += [f"{shown[0]} to {shown[-1]}"] if run else shown
    for code in bits(weekday.nth):
        nth, value = divmod(code, 8)
        words.append(f"the {_NTH[nth]} {WEEKDAY_NAMES[value]} of the month")
    words += [f"the last {WEEKDAY_NAMES[value]} of the month" for value in bits(weekday.last_weekdays)]
    return listing(words, last)


def _months(cron: Cron) -> str:
    mask = cron.mask(MONTH, 0)
    if mask == ALL_MONTHS:
        return ""
    return f"in {_ranges(bits(mask), ('', *MONTH_NAMES))}"


def _years(cron: Cron) -> str:
    field = cron.field(YEAR)
    if field is None or field.mask.bit_count() == civil.LAST_YEAR - civil.FIRST_YEAR + 1:
        return ""
    values = bits(field.mask)
    return f"in {_ranges(values)}" if len(values) <= 12 else f"in the {len(values)} years {field.text}"
