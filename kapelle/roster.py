"""The agents that are known here: installed ones, and those whose work a database remembers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import JsonValue
from rich.console import Group, RenderableType
from rich.text import Text

from kapelle.checkpoints.database import Database
from kapelle.nodes.breaking import known_breakers
from kapelle.nodes.measuring import Introduced, known_cards, known_outcomes
from kapelle.nodes.registry import installed_agents
from kapelle.showing import bounded, columns, in_short, listed, when
from kapelle.state.errors import DatabaseMissing, Refused
from kapelle.state.policy import Policy
from kapelle.state.reputation import OVERALL, Outcome, Record, record_of
from kapelle.state.skills import AgentCard, fits, identity
from kapelle.state.task import Task

LAST = 10
"""Outcomes that are shown of one agent."""
IN_A_ROW = 3
"""Outcomes that must all be bad for an agent to be failing."""

HEALTH = {"new": "dim", "working": "green", "failing": "bold red", "left alone": "bold red"}
"""How an agent's health looks."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of one agent."""

    card: AgentCard
    installed: bool = False
    """Whether a package that is installed here offers it."""
    seen: float | None = None
    """When it was last called to bid (Unix time in seconds)."""
    outcomes: Sequence[Outcome] = ()
    """What was measured, the oldest first."""

    broken: bool = False
    """Whether its breaker is open: runs leave it alone."""
    others: Sequence[AgentCard] = ()
    """Other cards that came under its name, after its own."""

    @property
    def record(self) -> Record:
        """What that makes."""
        return record_of(self.outcomes, Policy().decay)

    @property
    def health(self) -> str:
        """`new`, `working`, `failing` if the last outcomes were all bad, `left alone` by runs."""
        if self.broken:
            return "left alone"
        last = [outcome.score < 0.5 for outcome in self.outcomes[-IN_A_ROW:]]
        return (
            "new" if not last else "failing" if len(last) == IN_A_ROW and all(last) else "working"
        )

    def document(self) -> dict[str, JsonValue]:
        """For programs."""
        return {
            "card": self.card.model_dump(mode="json"),
            "installed": self.installed,
            "seen": self.seen,
            "health": self.health,
            "others": [card.model_dump(mode="json") for card in self.others],
            "outcomes": len(self.outcomes),
            "reputation": {
                skill or "overall": {"good": count.good, "bad": count.bad}
                for skill, count in sorted(self.record.counts.items())
            },
        }


async def roster(db: Database, skill: str = "") -> list[Known]:
    """All agents that are known, by name; with a skill those that have it.

    A name is that of the installed agent, else of the first card that the database remembers
    under it; cards that differ stand beside it.
    """
    found = {a.card.name: Known(card=a.card, installed=True) for a in installed_agents()}
    try:
        cards, breakers = await known_cards(db.store), await known_breakers(db.store)
    except DatabaseMissing:
        cards, breakers = {}, {}
    for name, introduced in cards.items():
        known = _remembered(found.get(name), introduced)
        found[name] = replace(known, outcomes=await known_outcomes(db.store, name))
    for name, known in found.items():
        breaker = breakers.get(identity(known.card))
        found[name] = replace(known, broken=breaker is not None and breaker.open)
    wanted = Task(goal="be found", skills=(skill,) if skill else ())
    return [known for _, known in sorted(found.items()) if fits(known.card, wanted)]


def _remembered(installed: Known | None, introduced: Sequence[Introduced]) -> Known:
    known = installed or Known(card=introduced[0].card)
    return replace(
        known,
        seen=max(each.seen for each in introduced),
        others=[each.card for each in introduced if each.card != known.card],
    )


async def one(db: Database, name: str) -> Known:
    """What is known of the agent of that name.

    Raises:
        Refused: there is none; says which there are.
    """
    known = {each.card.name: each for each in await roster(db)}
    if name not in known:
        raise Refused(f"there is no agent {name!r}; known are {listed(sorted(known)) or 'none'}")
    return known[name]


def shown_roster(agents: Sequence[Known]) -> RenderableType:
    """Agents in a table."""
    if not agents:
        return Text("No agents are known here.", style="dim")
    rows = columns("Agent", "Skills", "Health", "Did well", "Outcomes", "Called", "Installed")
    for known in agents:
        rows.add_row(
            Text(in_short(known.card.name), style="bold"),
            Text(listed(known.card.skills)),
            Text(known.health, style=HEALTH[known.health]),
            _share(known.record, OVERALL),
            str(len(known.outcomes)),
            when(known.seen),
            "yes" if known.installed else "",
        )
    return rows


def shown_agent(known: Known) -> RenderableType:
    """All that is known of one agent: its card, its record by skill, its last outcomes."""
    head = Text.assemble(
        (in_short(known.card.name), "bold"), "  ", (known.health, HEALTH[known.health])
    )
    told = known.card.model_dump(mode="json", exclude={"name"})
    card = {field: said for field, said in told.items() if said not in (None, "")}
    records = columns("Skill", "Did well", "Of about")
    for skill, count in sorted(known.record.counts.items()):
        records.add_row(
            Text(in_short(skill or "all")), _share(known.record, skill), f"{count.seen:.1f}"
        )
    last = [
        Text(f"  {when(o.at)}  {o.score:.0%}  {in_short(o.why)}") for o in known.outcomes[-LAST:]
    ]
    below: list[RenderableType] = [Text(), records, Text(), *last] if last else []
    return Group(head, *map(_claimant, known.others), *bounded(card, 40), *below)


def _claimant(card: AgentCard) -> Text:
    skills = listed(card.skills) or "no skills"
    return Text(
        f"  Another card has this name ({in_short(skills)}). Give its agent another name; or, if "
        f"it is the same agent, `kapelle agents forget` makes the next card count.",
        style="yellow",
    )


def _share(record: Record, skill: str) -> str:
    count = record.counts.get(skill)
    return f"{count.good / count.seen:.0%}" if count is not None and count.seen else ""
