"""What agents assert, what a run holds as decided, and the document that all its agents read."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue

from kapelle.state.noun import Noun

KeyType = Literal["text", "number", "date", "range", "order", "flag"]
"""How values of a key are compared: as words, as quantities, as points or stretches of time, as
intervals, as what comes before what, as true or false."""

Op = Literal["is", "is not", "in", "not in", "at least", "at most", "claimed"]

Kind = Literal[
    "value", "type", "order", "constraint", "exclusion", "dependency", "stale", "omission"
]
"""What is wrong: values that can't both hold; one that is not of the key's type; a circle; a
constraint that is broken; keys that exclude or need each other; a claim made before its key was
decided otherwise; a key that was promised and not delivered."""

Rule = Literal[
    "constraint", "decided", "evidence", "vote", "judge", "person", "undisputed", "given"
]
"""Who or what settled it. The first six in this order; the last two need no settling."""


class Key(Noun):
    """What may be claimed under a name."""

    name: str = Field(min_length=1)
    type: KeyType = "text"
    """How its values are compared."""
    unit: str = ""
    """For numbers and ranges: what a bare number is meant in, like `ms`, `GB`, `EUR`."""
    many: bool = False
    """Whether several values may hold at once."""
    tolerance: float = Field(default=0.0, ge=0)
    """How far apart two numbers may be and still agree, in `unit`."""


class Claim(Noun):
    """An assertion: the value of a key."""

    key: str = Field(min_length=1)
    """What it is about, like `frontend.framework`."""
    value: JsonValue
    confidence: float = Field(default=1.0, ge=0, le=1)
    """How sure the agent is, from 0 to 1."""
    evidence: str = ""
    """Where it can be seen."""
    by: str = ""
    """The agent; stamped by the orchestrator, not by the agent."""
    task: str = ""
    """The task it was made in; stamped by the orchestrator."""
    version: int = 0
    """The version of the master context its agent had read; stamped by the orchestrator."""


class Condition(Noun):
    """What can be checked of a key's value."""

    key: str = Field(min_length=1)
    op: Op = "is"
    """How it is compared; `claimed`: whether anybody claims it at all."""
    value: JsonValue = None
    """What it is compared with: a list for `in` and `not in`, nothing for `claimed`."""


class Constraint(Noun):
    """What must hold: in words for agents, and as conditions where it can be checked."""

    text: str = Field(min_length=1)
    """What agents are told."""
    by: str = ""
    """Who set it."""
    hard: bool = True
    """Whether it must hold; else it should."""
    when: Condition | None = None
    """It applies only where this holds: so keys exclude or need each other."""
    must: Condition | None = None
    """What is checked; None: it is in words only."""


class Decision(Noun):
    """What the run holds as true of a key, and why."""

    key: str
    value: JsonValue
    rule: Rule
    """What decided."""
    by: tuple[str, ...] = ()
    """The agents that claimed it."""
    who: str = ""
    """The judge or the person who decided; empty where a rule did."""
    version: int = 0
    """The version of the master context that it came in with."""
    step: str = ""
    """The node execution that decided, so that it may decide again after a crash."""


class Question(Noun):
    """What is still open."""

    key: str = ""
    """What it is about; it goes when that is decided."""
    text: str = Field(min_length=1)
    """The question, as agents and people read it."""


class Side(Noun):
    """One of the things that can't all hold, and who says so."""

    value: JsonValue = None
    claims: tuple[Claim, ...] = ()
    """Who claims it; the surest first."""
    held: str = ""
    """What holds it beside claims: `decided`, or the text of a constraint."""
    misfit: bool = False
    """Whether the value is not of the key's declared type."""
    stands: bool = False
    """Whether it holds, once that is settled."""


class Contradiction(Noun):
    """Things that can't all hold, with both sides, and how it was settled."""

    key: str
    kind: Kind = "value"
    sides: tuple[Side, ...] = ()
    """All of them; once it is settled, those that stand first."""
    why: str = ""
    """What is wrong, in a sentence."""
    promised: tuple[str, ...] = ()
    """For an omission: the tasks that promised the key."""
    rule: Rule | None = None
    """What settled it; None: nothing yet."""
    decision: Decision | None = None
    """What is held as true from now on, if that follows."""
    flagged: tuple[str, ...] = ()
    """Tasks whose finished work rests on what does not stand, and was not done again."""

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The claims of all sides."""
        return tuple(claim for side in self.sides for claim in side.claims)

    @property
    def losing(self) -> tuple[Claim, ...]:
        """The claims that do not stand; none while it is open."""
        if self.rule is None:
            return ()
        return tuple(claim for side in self.sides if not side.stands for claim in side.claims)


def _constraint(given: Any) -> Any:
    return Constraint(text=given) if isinstance(given, str) else given


class MasterContext(Noun):
    """The document all agents of a run can read."""

    goal: str = ""
    constraints: tuple[Annotated[Constraint, BeforeValidator(_constraint)], ...] = ()
    """What must hold; a text alone is a hard constraint in words."""
    decisions: tuple[Decision, ...] = ()
    """In order of key."""
    questions: tuple[Question, ...] = ()
    """What is open."""
    keys: tuple[Key, ...] = ()
    """The keys whose type, unit and cardinality are declared; others are typed by first use."""
    version: int = 0
    """Grows by one with each change."""
    omitted: int = 0
    """Decisions that are left out of this view of it."""


def named(key: str) -> str:
    """A key as it is known: case and blanks do not tell keys apart.

    >>> named(" Frontend.Framework ")
    'frontend.framework'
    """
    return "".join(key.split()).casefold()


def with_decisions(
    context: MasterContext,
    decisions: Iterable[Decision],
    *,
    seen: int,
    keys: Iterable[Key] = (),
    most: int | None = None,
) -> MasterContext:
    """The context with these decisions, made by someone who had read version `seen`.

    A key that was decided since stays as it is: whoever was faster won, and the other finds that
    in what is returned. The same again changes nothing. With `most`, keys beyond so many are left
    out, the last ones first; `left_out` says which.
    """
    known = {named(d.key): d for d in context.decisions}
    typed = {named(k.name): k for k in context.keys}
    version = context.version + 1
    new = {
        key: d.model_copy(update={"key": key, "version": version})
        for d in decisions
        if _may(known.get(key := named(d.key)), d, seen)
    }
    if most is not None:
        room = max(0, most - len(known))
        fresh = [key for key in new if key not in known]
        new = {key: d for key, d in new.items() if key not in set(fresh[room:])}
    more = {name: k for k in keys if (name := named(k.name)) not in typed}
    if most is not None:
        more = dict(list(more.items())[: max(0, most - len(typed))])
    if not new and not more:
        return context
    return context.model_copy(
        update={
            "version": version,
            "decisions": tuple(d for _, d in sorted({**known, **new}.items())),
            "keys": tuple(k for _, k in sorted({**typed, **more}.items())),
            "questions": tuple(q for q in context.questions if q.key not in new),
        }
    )


def _may(old: Decision | None, new: Decision, seen: int) -> bool:
    if old is None:
        return True
    same = (old.value, old.rule, old.by, old.who) == (new.value, new.rule, new.by, new.who)
    return not same and (old.version <= seen or old.step == new.step != "")


def left_out(context: MasterContext, decisions: Iterable[Decision]) -> tuple[str, ...]:
    """The keys that were decided and for which the context had no room."""
    held = {d.key for d in context.decisions}
    return tuple(key for d in decisions if (key := named(d.key)) not in held)


def with_questions(
    context: MasterContext, questions: Iterable[Question], most: int | None = None
) -> MasterContext:
    """The context with these open questions, one a key; at most `most`, if it is said."""
    asked = {q.key: q for q in (*context.questions, *questions)}
    new = dict(list(asked.items())[:most])
    if tuple(new.values()) == context.questions:
        return context
    update = {"questions": tuple(new.values()), "version": context.version + 1}
    return context.model_copy(update=update)


def without(context: MasterContext, step: str) -> MasterContext:
    """The context without what the node execution `step` decided, if it ran before."""
    rest = tuple(d for d in context.decisions if d.step != step or not step)
    return (
        context
        if len(rest) == len(context.decisions)
        else context.model_copy(update={"decisions": rest})
    )
