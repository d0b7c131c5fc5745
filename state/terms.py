"""What keys are declared to be and what must hold of them, looked up by key.

A context has them in lists. Who settles many contradictions reads those once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from kapelle.state.context import Condition, Constraint, Key, MasterContext, named


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of a context; all but `laws` by key."""

    keys: Mapping[str, Key] = field(default_factory=dict)
    """What is declared."""
    hard: Mapping[str, Sequence[Condition]] = field(default_factory=dict)
    """What must hold, whatever else is so."""
    soft: Mapping[str, Sequence[Condition]] = field(default_factory=dict)
    """What should."""
    laws: Mapping[str, Constraint] = field(default_factory=dict)
    """All constraints, by text."""

    @classmethod
    def of(cls, context: MasterContext) -> Self:
        """Those of this context."""
        laws = context.constraints
        return cls(
            keys={named(key.name): key for key in context.keys},
            hard=_by_key(law for law in laws if law.hard),
            soft=_by_key(law for law in laws if not law.hard),
            laws={law.text: law for law in reversed(laws)},
        )


def _by_key(laws: Iterable[Constraint]) -> dict[str, list[Condition]]:
    found: dict[str, list[Condition]] = {}
    for law in laws:
        if law.must is not None and law.when is None:
            found.setdefault(named(law.must.key), []).append(law.must)
    return found
