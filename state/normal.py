"""Values as they are compared: what differs only in how it is written is one value.

A value becomes an *atom* (text, flag, JSON), which equals or not, or a *span*, an interval of one
dimension, which meets others or not. A number is a span as wide as its tolerance, so that two agree
exactly if they are no further apart; a date is its whole day.
"""

import calendar
import json
import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from pydantic import JsonValue

from kapelle.state.context import Key, KeyType
from kapelle.state.units import EXACT, Quantity, counted, quantity

NOISE = Decimal("1e-9")
"""The part of a number that binary fractions may get wrong."""

End = tuple[Decimal, int]
"""Where an interval ends: the number, and 1 or -1 if it is just above or below that."""


class Span(NamedTuple):
    """An interval of one dimension."""

    dimension: str
    low: End
    high: End


class Atom(NamedTuple):
    """What is equal or not."""

    sort: str
    value: Hashable
    misfit: bool = False
    """Whether it is not of the type its key has."""


class Chain(NamedTuple):
    """Things in order."""

    items: tuple[str, ...]


Normal = Span | Atom | Chain

_Test = Callable[[JsonValue], bool]

_FIRST, _LAST = (Decimal("-Infinity"), 0), (Decimal("Infinity"), 0)


def normal(value: JsonValue, key: Key) -> Normal:
    """A value as values of this key are compared."""
    if key.type == "text":
        return _atom(value)
    found = _READERS[key.type](value, key)
    return found if found is not None else _atom(value)._replace(misfit=True)


def meets(a: Normal, b: Normal) -> bool:
    """Whether both can hold at once."""
    if isinstance(a, Span) and isinstance(b, Span):
        return a.dimension == b.dimension and a.low <= b.high and b.low <= a.high
    return a == b


def inferred(name: str, values: Iterable[JsonValue]) -> Key:
    """A free key, typed by its first use: the narrowest type that all values can be read as.

    Where that is a guess that could hide a contradiction, it is text: `1.1` and `1.10` may be
    versions, `10-12` a score, `3/4/2026` either of two days.
    """
    values = _distinct(values)
    for type_, reads, clearly in _GUESSES:
        if all(map(reads, values)) and any(map(clearly, values)):
            return Key(name=name, type=type_)
    return Key(name=name)


def _distinct(values: Iterable[JsonValue]) -> list[JsonValue]:
    """Texts first: they tell soonest what type it is not."""
    plain: dict[tuple[type, JsonValue], JsonValue] = {}
    rest: list[JsonValue] = []
    for value in values:
        if isinstance(value, (list, dict)):
            rest.append(value)
        else:
            plain[type(value), value] = value
    return [*sorted(plain.values(), key=lambda v: not isinstance(v, str)), *rest]


def clean(text: str) -> str:
    """Words without what tells no two apart: case, blanks, width of characters."""
    return _spaced(text).casefold()


def _spaced(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())


@lru_cache(65_536)
def _word(text: str) -> Atom:
    return Atom("text", clean(text))


def _atom(value: JsonValue) -> Atom:
    if isinstance(value, str):
        return _word(value)
    if isinstance(value, bool) or value is None:
        return Atom("json", json.dumps(value))
    if isinstance(value, int | float):
        found = counted(value)
        return Atom("number", found.number) if found else Atom("json", repr(value))
    return Atom("json", json.dumps(_cleaned(value), sort_keys=True))


def _cleaned(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return {key: _cleaned(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_cleaned(v) for v in value]
    if isinstance(value, str):
        return clean(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _number(value: JsonValue, key: Key) -> Span | None:
    return _about(value, key.unit, key.tolerance)


def _about(value: JsonValue, unit: str, tolerance: float = 0.0) -> Span | None:
    """A number, as wide as what two may differ by."""
    found = _measure(value, unit)
    if found is None:
        return None
    width = _width(found.number, unit, tolerance)
    low, high = EXACT.subtract(found.number, width), EXACT.add(found.number, width)
    return Span(found.dimension, (low, 0), (high, 0))


def _width(number: Decimal, unit: str, tolerance: float) -> Decimal:
    """Half of how far apart two numbers may be."""
    noise = EXACT.multiply(abs(number), NOISE)
    if not tolerance:
        return noise / 2
    zero, one = counted(0.0, unit), counted(tolerance, unit)
    assert zero is not None
    assert one is not None
    return max(noise, EXACT.subtract(one.number, zero.number)) / 2


def _measure(value: JsonValue, unit: str) -> Quantity | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return counted(value, unit)
    return quantity(value, unit) if isinstance(value, str) else None


_BETWEEN = re.compile(r"(?i:between |from )?(.+?) ?(?:\.\.\.?|–|(?i: to | and ))(?!$) ?(.+)")
_HYPHEN = re.compile(r"([\d.]+) ?- ?([\d.].*)")
_COMPARED = re.compile(r"(<=|>=|=<|=>|[≤≥<>]|(?i:at least|at most|under|over|below|above) )(.+)")
_OPEN = {"<": -1, "under": -1, "below": -1, ">": 1, "over": 1, "above": 1}
_UP = ("<=", "=<", "≤", "<", "at most", "under", "below")


def _range(value: JsonValue, key: Key) -> Span | None:
    if isinstance(value, dict):
        return _limits(value.get("min"), value.get("max"), key.unit) if _is_range(value) else None
    text = _spaced(value) if isinstance(value, str) else ""
    if compared := _COMPARED.fullmatch(text):
        return _half(compared[1].strip().lower(), quantity(compared[2], key.unit))
    if between := _BETWEEN.fullmatch(text) or _HYPHEN.fullmatch(text):
        return _limits(between[1], between[2], key.unit)
    return _about(value, key.unit)


def _half(sign: str, at: Quantity | None) -> Span | None:
    """All on one side of a number."""
    if at is None:
        return None
    end = (at.number, _OPEN.get(sign, 0))
    if sign in _UP:
        return Span(at.dimension, _FIRST, end)
    return Span(at.dimension, end, _LAST)


def _is_range(value: dict[str, JsonValue]) -> bool:
    return bool(value) and set(value) <= {"min", "max"}


def _limits(low: JsonValue, high: JsonValue, unit: str) -> Span | None:
    """A range; where only its upper end says a unit, both are meant in it."""
    last = None if high is None else _measure(high, unit)
    named = re.search(r"[^\d\s.,]+$", high) if isinstance(high, str) else None
    first = None if low is None else _measure(low, named[0] if named else unit)
    if (low is not None and first is None) or (high is not None and last is None):
        return None
    if first and last and (first.dimension != last.dimension or first.number > last.number):
        return None
    some = first or last
    return some and Span(
        some.dimension,
        (first.number, 0) if first else _FIRST,
        (last.number, 0) if last else _LAST,
    )


_MONTHS = {
    name.casefold(): n
    for names in (calendar.month_name, calendar.month_abbr)
    for n, name in enumerate(names)
    if name
}
_DATES = (
    re.compile(r"(?P<y>\d{4})[-/.](?P<m>\d{1,2})[-/.](?P<d>\d{1,2})"),
    re.compile(r"(?P<d>\d{1,2})\.(?P<m>\d{1,2})\.(?P<y>\d{4})"),
    re.compile(r"(?P<d>\d{1,2})(?:st|nd|rd|th|\.)? (?P<n>[a-z]+)\.?,? (?P<y>\d{4})"),
    re.compile(r"(?P<n>[a-z]+)\.? (?P<d>\d{1,2})(?:st|nd|rd|th)?,? (?P<y>\d{4})"),
    re.compile(r"(?P<n>[a-z]+)\.? (?P<y>\d{4})"),
    re.compile(r"(?P<y>\d{4})-(?P<m>\d{2})"),
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _date(value: JsonValue, key: Key) -> Span | None:
    return _when(value) if isinstance(value, str) else None


@lru_cache(65_536)
def _when(text: str) -> Span | None:
    """A day, a month, or an instant; UTC if nothing else is said. `3/4/2026` is either of two."""
    text = clean(text)
    for pattern in _DATES:
        if found := pattern.fullmatch(text):
            return _day(found.groupdict())
    try:
        at = datetime.fromisoformat(text.upper())
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    seconds = _since(at)
    return Span("date", (seconds, 0), (seconds, 0))


def _day(found: dict[str, str | None]) -> Span | None:
    month = _MONTHS.get(found.get("n") or "", 0) or int(found.get("m") or 0)
    year = int(found["y"] or 0)
    try:
        first = date(year, month, int(found.get("d") or 1))
    except ValueError:
        return None
    days = 1 if found.get("d") else calendar.monthrange(year, month)[1]
    start = datetime(first.year, first.month, first.day, tzinfo=UTC)
    low, high = _since(start), _since(start + timedelta(days=days - 1)) + 86_400
    return Span("date", (low, 0), (high, -1))


def _since(at: datetime) -> Decimal:
    return Decimal((at - _EPOCH) // timedelta(microseconds=1)) / 1_000_000


def _order(value: JsonValue, key: Key) -> Chain | None:
    if isinstance(value, str):
        value = list(re.split(r"<|->|→| before ", value))
    if not isinstance(value, list) or not all(isinstance(v, str) and v.strip() for v in value):
        return None
    return Chain(tuple(clean(str(v)) for v in value)) if len(value) > 1 else None


_FLAGS = {
    word: said
    for said, words in ((True, "true yes on y 1"), (False, "false no off n 0"))
    for word in words.split()
}


def _flag(value: JsonValue, key: Key) -> Atom | None:
    said = value if isinstance(value, bool) else _FLAGS.get(clean(str(value)))
    return None if said is None else Atom("flag", said)


_READERS = {
    "number": _number,
    "date": _date,
    "range": _range,
    "order": _order,
    "flag": _flag,
}


def _all_flags(value: JsonValue) -> bool:
    return isinstance(value, bool)


def _all_numbers(value: JsonValue) -> bool:
    return _measure(value, "") is not None


def _all_days(value: JsonValue) -> bool:
    return isinstance(value, str) and _when(value) is not None


def _all_ranges(value: JsonValue) -> bool:
    hyphened = isinstance(value, str) and _HYPHEN.fullmatch(clean(value))
    return not hyphened and _range(value, _FREE) is not None


def _has_unit(value: JsonValue) -> bool:
    return (
        not isinstance(value, str) or re.search(r"[^\d\s.,e+-]", value, re.IGNORECASE) is not None
    )


def _has_ends(value: JsonValue) -> bool:
    return isinstance(value, dict) or (isinstance(value, str) and not _all_numbers(value))


_FREE = Key(name="?")
_GUESSES: tuple[tuple[KeyType, _Test, _Test], ...] = (
    ("flag", _all_flags, _all_flags),
    ("number", _all_numbers, _has_unit),
    ("date", _all_days, _all_days),
    ("range", _all_ranges, _has_ends),
)
"""A type, whether a value can be read as it, and whether a value clearly is of it."""
