"""Quantities: what a number with a unit is in the base unit of its dimension.

A table of our own, not a library: what agents claim needs a hundred units, exact decimal factors
and microseconds a claim; pint, the well-kept one, brings 0.3 s of import, a parser of expressions
and binary floats. A unit that is not in the table is a dimension of its own: it equals only itself.
"""

import re
import unicodedata
from decimal import Context, Decimal
from functools import lru_cache
from typing import NamedTuple

EXACT = Context(prec=50)
"""Decimal arithmetic whatever the thread's own context is."""


class Unit(NamedTuple):
    """`base = number * factor + offset`."""

    dimension: str
    factor: Decimal = Decimal(1)
    offset: Decimal = Decimal(0)


class Quantity(NamedTuple):
    """A number in the base unit of its dimension."""

    dimension: str
    """Empty for plain numbers and parts of a whole."""
    number: Decimal


_TABLE = {
    "": "%,percent=0.01 ‰=0.001 ppm=1e-6 k,thousand=1000 million=1e6 billion=1e9",
    "time": "ns=1e-9 µs,us=1e-6 ms,msec,millisecond,milliseconds=0.001 "
    "s,sec,secs,second,seconds=1 min,mins,minute,minutes=60 h,hr,hrs,hour,hours=3600 "
    "d,day,days=86400 week,weeks=604800",
    "data": "bit,bits=0.125 kbit=125 Mbit=125000 Gbit=125e6 B,byte,bytes=1 "
    "kB=1e3 MB=1e6 GB=1e9 TB=1e12 PB=1e15 "
    "KiB=1024 MiB=1048576 GiB=1073741824 TiB=1099511627776",
    "length": "nm=1e-9 µm,um=1e-6 mm=0.001 cm=0.01 m,meter,meters,metre,metres=1 km=1000 "
    "in,inch,inches=0.0254 ft,foot,feet=0.3048 yd,yard,yards=0.9144 mi,mile,miles=1609.344",
    "area": "m²,m2=1 km²,km2=1e6 ha=1e4 ft²,ft2=0.09290304",
    "volume": "ml=0.001 cl=0.01 l,liter,liters,litre,litres=1 m³,m3=1000",
    "mass": "µg,ug=1e-9 mg=1e-6 g,gram,grams=0.001 kg=1 t,tonne,tonnes=1000 "
    "lb,lbs=0.45359237 oz=0.028349523125",
    "frequency": "Hz=1 kHz=1e3 MHz=1e6 GHz=1e9",
    "power": "mW=0.001 W,watt,watts=1 kW=1e3 MW=1e6 GW=1e9",
    "energy": "J=1 kJ=1e3 MJ=1e6 Wh=3600 kWh=3.6e6 MWh=3.6e9 cal=4.184 kcal=4184",
    "voltage": "mV=0.001 V,volt,volts=1 kV=1000",
    "current": "mA=0.001 A,amp,amps=1",
    "pressure": "Pa=1 hPa,mbar=100 kPa=1000 bar=1e5 psi=6894.757293168",
    "speed": "mph=0.44704 kph=0.277777777777777777777777777777777777777777777777778",
    "tokens": "token,tokens=1",
} | {money: f"{money},{sign}=1" for money, sign in {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥",
                                                    "INR": "₹", "CHF": "Fr."}.items()}  # fmt: skip
"""Dimension to units: names that mean the same, and what one of it is in the base unit. The data
units are decimal unless they say `i` (IEC 80000-13)."""

_SHIFTED = {
    "K": Unit("temperature"),
    "°C": Unit("temperature", Decimal(1), Decimal("273.15")),
    "°F": Unit(
        "temperature",
        EXACT.divide(Decimal(5), Decimal(9)),
        EXACT.divide(Decimal("2298.35"), Decimal(9)),
    ),
}


def _listed() -> dict[str, Unit]:
    found = dict(_SHIFTED)
    for dimension, line in _TABLE.items():
        for entry in line.split():
            names, _, factor = entry.rpartition("=")
            found |= dict.fromkeys(names.split(","), Unit(dimension, Decimal(factor)))
    return {unicodedata.normalize("NFKC", name): unit for name, unit in found.items()}


def _folded() -> dict[str, Unit]:
    """Names in lower case, where no two units would become one, as mW and MW would."""
    found: dict[str, set[Unit]] = {}
    for name, unit in UNITS.items():
        found.setdefault(name.casefold(), set()).add(unit)
    return {name: units.pop() for name, units in found.items() if len(units) == 1}


UNITS = _listed()
_FOLDED = _folded()

_NUMBER = (
    r"[+-]?(?:\d{1,3}(?:[,_' ]\d{3})+(?:\.\d+)?|\d+,\d{1,2}(?!\d)|\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
)
_SIGNS = "%‰°$€£¥₹"
_QUANTITY = re.compile(
    rf"(?P<money>[$€£¥₹])? ?(?P<number>{_NUMBER}) ?"
    rf"(?P<unit>(?:[^\W\d_]|[{_SIGNS}])[^\d]*[23]?)?",
    re.IGNORECASE,
)


@lru_cache(4096)
def unit(name: str) -> Unit | None:
    """The unit of this name, `a/b` included; None if it is not in the table.

    >>> unit("km/h").factor == EXACT.divide(unit("km").factor, unit("h").factor)
    True
    """
    name = unicodedata.normalize("NFKC", name).strip()
    known = UNITS.get(name) or _FOLDED.get(name.casefold())
    if known is not None or "/" not in name:
        return known
    over, _, under = name.partition("/")
    top, bottom = unit(over), unit(under)
    if top is None or bottom is None or top.offset or bottom.offset:
        return None
    dimension = {"length/time": "speed"}.get(f"{top.dimension}/{bottom.dimension}")
    factor = EXACT.divide(top.factor, bottom.factor)
    return Unit(dimension or f"{top.dimension}/{bottom.dimension}", factor)


def quantity(text: str, default: str = "") -> Quantity | None:
    """A number with or without a unit; None if it is none. Without one, `default` is meant.

    >>> quantity("1.5 GB") == quantity("1500 mb")
    True
    >>> quantity("about 3") is None
    True
    """
    return _quantity(" ".join(unicodedata.normalize("NFKC", text).split()), default)


def counted(number: float | Decimal, default: str = "") -> Quantity | None:
    """A plain number in the unit `default`; None if it is not finite."""
    exact = number if isinstance(number, Decimal) else Decimal(repr(number))
    if not exact.is_finite():
        return None
    return _measured(exact, default) if default else Quantity("", exact)


@lru_cache(65_536)
def _quantity(text: str, default: str) -> Quantity | None:
    found = _QUANTITY.fullmatch(text)
    if found is None or (found["money"] and found["unit"]):
        return None
    number = counted(Decimal(_plain(found["number"])))
    named = (found["money"] or found["unit"] or "").strip()
    if number is None:
        return None
    if not named:
        return _measured(number.number, default)
    if unit(named) is None and named.casefold() != default.casefold():
        return None
    return _measured(number.number, named)


def _measured(number: Decimal, name: str) -> Quantity:
    known = unit(name) if name else Unit("")
    if known is None:
        return Quantity(name.casefold(), number)
    return Quantity(known.dimension, EXACT.add(EXACT.multiply(number, known.factor), known.offset))


def _plain(number: str) -> str:
    """English thousands and a decimal comma as Python writes them."""
    if re.fullmatch(r"[+-]?\d+,\d{1,2}(e.*)?", number, re.IGNORECASE):
        return number.replace(",", ".")
    return re.sub(r"[,_' ]", "", number)
