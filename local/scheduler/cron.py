"""Evaluates EventBridge Scheduler's expressions: cron(), rate() and at(), in a time zone with daylight saving."""

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

MONTHS = {name.upper(): number for number, name in enumerate(calendar.month_abbr) if name}
DAYS = dict(zip(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), range(1, 8), strict=True))
YEARS = range(1970, 2200)
UNITS = {"minute": 60, "hour": 60 * 60, "day": 24 * 60 * 60}
FOREVER = timedelta(days=366 * 30)
"""After which nothing is looked for any more: longer than any cron expression waits that has a further time."""


class Unusable(ValueError):
    """An expression that EventBridge Scheduler would refuse."""


@dataclass(frozen=True)
class Rate:
    """rate(value unit): every so often from a start, whatever the clocks do."""

    seconds: int
    start: datetime

    def after(self, moment: datetime) -> datetime | None:
        """Returns the first time after a moment."""
        if moment < self.start:
            return self.start
        passed = (moment - self.start).total_seconds() // self.seconds
        return self.start + timedelta(seconds=(passed + 1) * self.seconds)


@dataclass(frozen=True)
class Once:
    """at(yyyy-mm-ddThh:mm:ss)."""

    at: datetime

    def after(self, moment: datetime) -> datetime | None:
        """Returns the time, if it is after a moment."""
        return self.at if self.at > moment else None


@dataclass(frozen=True)
class Cron:
    """cron(minutes hours day-of-month month day-of-week year)."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: str
    months: frozenset[int]
    weekdays: str
    years: frozenset[int]
    zone: ZoneInfo

    def after(self, moment: datetime) -> datetime | None:
        """Returns the first time after a moment.

        A time that the clocks skip is left out, one that they repeat comes once (Scheduler, daylight saving time).
        """
        day = moment.astimezone(self.zone).date() - timedelta(days=1)
        end = day + FOREVER
        while day < end:
            if day.year not in self.years or day.month not in self.months:
                day = day.replace(day=1) + timedelta(days=calendar.monthrange(day.year, day.month)[1])
                continue
            if self._has(day):
                for time in self._times(day):
                    if time > moment:
                        return time
            day += timedelta(days=1)
        return None

    def _times(self, day: date) -> Iterator[datetime]:
        for hour in sorted(self.hours):
            for minute in sorted(self.minutes):
                local = datetime(day.year, day.month, day.day, hour, minute, tzinfo=self.zone)
                time = local.astimezone(UTC)
                if time.astimezone(self.zone).replace(tzinfo=None) == local.replace(tzinfo=None):
                    yield time

    def _has(self, day: date) -> bool:
        return self._has_day_of_month(day) if self.weekdays == "?" else self._has_weekday(day)

    def _has_day_of_month(self, day: date) -> bool:
        last = calendar.monthrange(day.year, day.month)[1]
        if self.days == "L":
            return day.day == last
        if self.days == "LW":
            return day.day == _nearest_weekday(day, last, last)
        if self.days.endswith("W"):
            wanted = int(self.days[:-1])
            return wanted <= last and day.day == _nearest_weekday(day, wanted, last)
        return day.day in _numbers(self.days, range(1, 32))

    def _has_weekday(self, day: date) -> bool:
        number = day.isoweekday() % 7 + 1
        last = calendar.monthrange(day.year, day.month)[1]
        if self.weekdays == "L":
            return number == 7
        if self.weekdays.endswith("L"):
            return number == _number(self.weekdays[:-1], DAYS) and day.day + 7 > last
        if "#" in self.weekdays:
            wanted, _, nth = self.weekdays.partition("#")
            return number == _number(wanted, DAYS) and (day.day - 1) // 7 + 1 == int(nth)
        return number in _numbers(self.weekdays, range(1, 8), DAYS)


def parse(expression: str, zone: str, start: datetime) -> Rate | Once | Cron:
    """Returns an expression that can be asked for its times, or refuses it as EventBridge Scheduler does."""
    match = re.fullmatch(r"(rate|at|cron)\((.*)\)", expression)
    try:
        time_zone = ZoneInfo(zone)
    except (KeyError, ValueError, OSError) as error:
        raise Unusable(f"Invalid Schedule Expression Timezone {zone}.") from error
    if not match:
        raise Unusable(f"Invalid Schedule Expression {expression}.")
    try:
        kind, content = match.groups()
        if kind == "rate":
            return _rate(content, start)
        if kind == "at":
            local = datetime.strptime(content, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=time_zone)
            return Once(local.astimezone(UTC))
        return _cron(content, time_zone)
    except (KeyError, ValueError) as error:
        raise Unusable(f"Invalid Schedule Expression {expression}.") from error


def _rate(content: str, start: datetime) -> Rate:
    value, unit = content.split(" ")
    if not re.fullmatch("[1-9][0-9]*", value):
        raise ValueError(value)
    return Rate(int(value) * UNITS[unit.removesuffix("s")], start)


def _cron(content: str, zone: ZoneInfo) -> Cron:
    minutes, hours, days, months, weekdays, years = content.upper().split()
    if (days == "?") == (weekdays == "?"):
        raise ValueError("one of the two days must be ?")
    if not re.fullmatch(r"\?|L|LW|([1-9]|[12][0-9]|3[01])W", days):
        _numbers(days, range(1, 32))
    if special := re.fullmatch(r"([1-7]|[A-Z]{3})(L|#[1-5])", weekdays):
        _number(special[1], DAYS)
    elif weekdays not in ("?", "L"):
        if "/" in weekdays:
            raise ValueError("day-of-week has no steps")
        _numbers(weekdays, range(1, 8), DAYS)
    return Cron(
        _numbers(minutes, range(60)),
        _numbers(hours, range(24)),
        days,
        _numbers(months, range(1, 13), MONTHS),
        weekdays,
        _numbers(years, YEARS),
        zone,
    )


def _numbers(field: str, allowed: range, names: dict[str, int] | None = None) -> frozenset[int]:
    """Returns what the items of a field name: values, ranges, steps.

    A range that passes the field's end goes on at its beginning, but for years (Quartz, whose expressions they are).
    """
    found: set[int] = set()
    for item in field.split(","):
        base, slash, step = item.partition("/")
        if base == "*":
            low, high = allowed[0], allowed[-1]
        else:
            first, dash, last = base.partition("-")
            low = _number(first, names)
            high = _number(last, names) if dash else allowed[-1] if slash else low
        if slash and not re.fullmatch("[1-9][0-9]*", step):
            raise ValueError(item)
        if low not in allowed or high not in allowed or (low > high and allowed is YEARS):
            raise ValueError(item)
        end = high if low <= high else high + len(allowed)
        steps = range(low, end + 1, int(step) if slash else 1)
        found.update(allowed[(value - allowed[0]) % len(allowed)] for value in steps)
    return frozenset(found)


def _number(text: str, names: dict[str, int] | None = None) -> int:
    if names and text in names:
        return names[text]
    if not re.fullmatch("[0-9]+", text):
        raise ValueError(text)
    return int(text)


def _nearest_weekday(day: date, wanted: int, last: int) -> int:
    """Returns the weekday of the month that is nearest to one of its days."""
    weekday = day.replace(day=wanted).isoweekday()
    if weekday == 6:
        return wanted - 1 if wanted > 1 else wanted + 2
    if weekday == 7:
        return wanted + 1 if wanted < last else wanted - 2
    return wanted
