"""Work: what is asked, what is given with it, what comes back."""

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, Field, JsonValue, model_validator
from pydantic.json_schema import SkipJsonSchema

from kapelle.state.approval import Escalation
from kapelle.state.budget import Budget, Usage
from kapelle.state.context import Claim, Contradiction, MasterContext
from kapelle.state.message import Message
from kapelle.state.noun import Noun

Status = Literal["done", "partial", "waiting", "failed", "refused"]
"""How a piece of work stands: finished, finished in part, stopped for a person, not done
(an agent or the world failed), not done (a rule or a person said no)."""

Tier = Literal["economy", "standard", "premium"]
"""A class of models, the cheapest first."""

TIERS: tuple[Tier, ...] = ("economy", "standard", "premium")

M = TypeVar("M", bound=BaseModel)

REPORTED = 100
"""Parts without anything in them of which a result tells why; the others only by name."""

FailureKind = Literal[
    "raised",
    "timeout",
    "invalid",
    "too_large",
    "budget",
    "refused",
    "blocked",
    "nobody",
    "crashed",
    "unavailable",
    "messages",
]


class Task(Noun):
    """A piece of work as asked."""

    id: str = Field(default="task", min_length=1, max_length=128)
    """Unique within its plan."""
    goal: str = Field(min_length=1)
    """What is to be done, in words."""
    inputs: dict[str, JsonValue] = Field(default_factory=dict)
    """What the work needs to know, as plain JSON."""
    needs: tuple[str, ...] = ()
    """Ids of the tasks whose results this one needs."""
    skills: tuple[str, ...] = ()
    """Skills the agent must have, like `research.web`; all of them."""
    agent: str | None = None
    """The agent that must do it; else one is chosen by skill."""
    tier: Tier | None = None
    """The class of model it needs at least; None: whatever its agent has."""
    priority: int = 0
    """The higher, the earlier, where there is a choice; what it needs is as urgent as it is."""
    budget: Budget | None = None
    """The most it may use, out of what the run may."""
    promises: tuple[str, ...] = ()
    """Keys that its agent is to claim, like `api.version`; one that nobody claims is found."""
    context: SkipJsonSchema[MasterContext | None] = None
    """What the run's master context begins with: constraints, keys, decisions. Only in the task a
    run is started with; what a planner says of it counts for nothing."""
    project: SkipJsonSchema[str | None] = None
    """Runs of one project share one master context, which outlives them. As with `context`, only
    in the task a run is started with."""


class Plan(Noun):
    """Tasks that need each other, without cycles. What is wrong with a plan is said by name."""

    tasks: tuple[Task, ...]

    @model_validator(mode="after")
    def _is_dag(self) -> Self:
        if flaws := flaws_of(self.tasks):
            raise ValueError("; ".join(flaws))
        return self

    def __getitem__(self, task_id: str) -> Task:
        return next(t for t in self.tasks if t.id == task_id)


class Brief(Noun):
    """What an agent is given beside its task."""

    results: dict[str, "Result"] = Field(default_factory=dict)
    """Results of the tasks this one needs, by task id; for a synthesizer or judge, of all."""
    context: MasterContext = MasterContext()
    """What all agents of the run share."""
    feedback: tuple[str, ...] = ()
    """What was wrong with earlier tries, oldest first."""
    goals: dict[str, str] = Field(default_factory=dict)
    """For a synthesizer or judge: what each subtask was to do, by task id."""
    missing: dict[str, str] = Field(default_factory=dict)
    """For a synthesizer or who merges a tree: what was not done, by task id, and why."""
    agents: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """For a planner: who can work, name to skills."""
    messages: tuple[Message, ...] = ()
    """What other agents wrote to this one: data, whatever it says."""
    peers: tuple[str, ...] = ()
    """Who this agent may write to, by `Reply.messages`."""
    disputes: tuple[Contradiction, ...] = ()
    """For a judge: what no rule could settle; it answers by `Verdict.rulings`."""
    key: str = ""
    """Names this piece of work: the same in each try, after a crash and on resume, so that what
    must happen once can be keyed by it."""
    attempt: int = 1
    """The how-manieth try this is, from 1."""


class Failure(Noun):
    """Why something was not done: a type for the program, a sentence for the reader."""

    kind: FailureKind
    message: str
    """What happened and where, in one sentence."""
    agent: str | None = None
    """The agent that failed, if one did."""
    wanted: Usage | None = None
    """For `budget`: the most it would have cost."""
    accounts: tuple[str, ...] = ()
    """For `budget`: the accounts that have no room; the empty one is the run's."""
    parts: int = 1
    """For `budget`: how many parts it left no room for, or none of which could begin."""


class Attempt(Noun):
    """One try of one agent."""

    agent: str
    number: int
    """From 1, within one call."""
    started: float
    """Unix time in seconds."""
    seconds: float
    """How long it took."""
    usage: Usage = Usage()
    model: str = ""
    """The model that answered, if one did."""
    failure: Failure | None = None
    """None if the try succeeded."""


class Reply(Noun):
    """What an agent gives back."""

    output: Any = None
    """The work itself: anything JSON-able, or a pydantic model."""
    confidence: float | None = Field(default=None, ge=0, le=1)
    """How sure the agent is, from 0 to 1."""
    usage: Usage = Usage()
    """What it used, as the provider reports it."""
    model: str = ""
    """The model that answered, if one did."""
    claims: tuple[Claim, ...] = ()
    """What it asserts, as key and value."""
    messages: tuple[Message, ...] = ()
    """What it writes to other agents, where `Policy.channels` lets it."""
    escalation: Escalation | None = None
    """Why a person is needed before this counts."""


class Result(Noun):
    """What left a task or a run. Never an exception: `status` says what happened."""

    task: str
    """Id of the task."""
    status: Status
    output: JsonValue = None
    """The work itself; with status `waiting` what was proposed."""
    agent: str | None = None
    """Who did it."""
    confidence: float | None = None
    """How sure the agent is, from 0 to 1."""
    claims: tuple[Claim, ...] = ()
    usage: Usage = Usage()
    """All attempts together, those of nested runs included."""
    attempts: tuple[Attempt, ...] = ()
    failure: Failure | None = None
    """Why it was not done, for `failed` and `refused`."""
    escalation: Escalation | None = None
    """What a person is asked, for `waiting`."""
    missing: tuple[str, ...] = ()
    """Tasks without a result, for `partial`; those of a nested run as `task/part`; messages that
    were held back, by id."""
    parts: dict[str, "Result"] = Field(default_factory=dict)
    """What came of parts that do not count as done, by name: why, and what there was of it."""
    contradictions: tuple[Contradiction, ...] = ()
    """What could not all hold, with both sides and how it was settled."""
    messages: tuple[Message, ...] = ()
    """What its agent wrote to others."""
    heard: tuple[str, ...] = ()
    """Ids of the messages its agent was given to read."""
    version: int = 0
    """The version of the master context that its agent had read."""
    revision: int = 1
    """How many times the outcome of this task was recorded; the highest counts."""

    def read(self, model: type[M]) -> M:
        """The output as the model it was declared to be. State holds it as plain JSON."""
        return model.model_validate(self.output)


class Revision(Noun):
    """An order to do a task again."""

    task: str
    number: int
    """A result of at least this revision is wanted."""
    feedback: tuple[str, ...] = ()
    """What was wrong, oldest first."""
    avoid: tuple[str, ...] = ()
    """Agents that should not have it again."""
    failed: tuple[str, ...] = ()
    """Those of them that failed on it."""
    tried: tuple[Attempt, ...] = ()
    """What they tried."""


def flaws_of(tasks: Iterable[Task]) -> list[str]:
    """What keeps tasks from being a plan: each flaw a sentence that names the tasks.

    >>> flaws_of([Task(id="a", goal="x", needs=("b",))])
    ["task 'a' needs 'b', which is not in the plan"]
    """
    tasks = list(tasks)
    ids = [t.id for t in tasks]
    known = set(ids)
    flaws = [f"task id {i!r} is used {ids.count(i)} times" for i in dict.fromkeys(_repeated(ids))]
    flaws += [
        f"task {t.id!r} needs {need!r}, which is not in the plan"
        for t in tasks
        for need in t.needs
        if need not in known
    ]
    try:
        TopologicalSorter({t.id: t.needs for t in tasks}).prepare()
    except CycleError as error:
        flaws.append("tasks wait for each other: " + " -> ".join(reversed(error.args[1])))
    return flaws


def _repeated(ids: list[str]) -> list[str]:
    seen: set[str] = set()
    return [i for i in ids if i in seen or seen.add(i)]  # type: ignore[func-returns-value]


def merge_results(
    old: Mapping[str, Result] | None, new: Mapping[str, Result] | None
) -> dict[str, Result]:
    """Fold results: per task the highest revision counts. Order and repetition do not matter."""
    merged = dict(old or {})
    for task, result in (new or {}).items():
        merged[task] = _later(merged[task], result) if task in merged else result
    return merged


def merge_revisions(
    old: Mapping[str, Revision] | None, new: Mapping[str, Revision] | None
) -> dict[str, Revision]:
    """Fold orders: per task the highest number counts. Order and repetition do not matter."""
    merged = dict(old or {})
    for task, order in (new or {}).items():
        merged[task] = _stricter(merged[task], order) if task in merged else order
    return merged


def _later(a: Result, b: Result) -> Result:
    if a.revision != b.revision:
        return a if a.revision > b.revision else b
    return max(a, b, key=_canonical)


def _stricter(a: Revision, b: Revision) -> Revision:
    if a.number != b.number:
        return a if a.number > b.number else b
    return max(a, b, key=_canonical)


def _canonical(noun: Noun) -> str:
    return noun.model_dump_json()


def contradicted(results: Iterable[Result]) -> tuple[Contradiction, ...]:
    """What could not all hold, in any of these results: each once, in order of key."""
    found = {c.model_dump_json(): c for result in results for c in result.contradictions}
    return tuple(found[text] for text in sorted(found, key=lambda t: (found[t].key, t)))


def missed(result: Result) -> tuple[str, ...]:
    """What is missing of a task that was done in part, as `task/part`."""
    if result.status != "partial":
        return ()
    return tuple(f"{result.task}/{part}" for part in result.missing) or (result.task,)


def why_not(result: Result | None) -> str:
    """Why a task was not done, in one sentence."""
    if result is None or result.failure is None:
        return "a subtask it needs was not done"
    return result.failure.message


def reported(parts: Mapping[str, Result]) -> dict[str, Result]:
    """Of parts that do not count as done those that still hold something; of the others the first.

    The rest is known by name alone (`Result.missing`), so that what leaves stays of a size.
    """
    empty = [name for name, r in parts.items() if r.output is None and not r.parts]
    dropped = set(empty[REPORTED:])
    return {name: result for name, result in parts.items() if name not in dropped}


def total_usage(attempts: Iterable[Attempt]) -> Usage:
    """What these tries used together."""
    used = [attempt.usage for attempt in attempts]
    return used[0] if len(used) == 1 else sum(used, Usage())


def settled(result: Result, **change: Any) -> Result:
    """The next revision of a result."""
    return result.model_copy(update={"revision": result.revision + 1, **change})
