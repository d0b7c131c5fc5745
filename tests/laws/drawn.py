"""What Hypothesis draws: nouns from small worlds, so that they collide."""

from hypothesis import strategies as st

from kapelle.state.budget import Usage
from kapelle.state.context import Claim
from kapelle.state.skills import AgentCard
from kapelle.state.task import Failure, Plan, Result, Revision, Task

IDS = ("a", "b", "c", "d", "e", "f")

SKILLS = ("audit", "audit.security", "audit.security.sql", "write", "write.english")

ids = st.sampled_from(IDS)

values = st.sampled_from(
    [None, True, 1, 1.0, 0, "1", "", float("nan"), [1, 2], {"k": 1, "l": 2}, {"l": 2, "k": 1}]
)
"""JSON values, among them some that Python takes for equal."""

words = st.sampled_from(["too short", "no evidence", "wrong"])

kinds = st.sampled_from(["raised", "timeout", "invalid", "budget", "refused", "blocked"])

failures = st.builds(Failure, kind=kinds, message=words, agent=st.none() | ids)

usages = st.builds(
    Usage,
    input_tokens=st.integers(0, 1000),
    output_tokens=st.integers(0, 1000),
    calls=st.integers(0, 20),
    micro_usd=st.none() | st.integers(0, 10**9),
)

results = st.builds(
    Result,
    task=ids,
    status=st.sampled_from(["done", "partial", "waiting", "failed", "refused"]),
    output=values,
    revision=st.integers(1, 3),
    failure=st.none() | failures,
)

orders = st.builds(
    Revision,
    task=ids,
    number=st.integers(1, 4),
    feedback=st.lists(words, max_size=2).map(tuple),
    avoid=st.lists(st.sampled_from(["x", "y"]), max_size=2).map(tuple),
)

recorded = st.dictionaries(st.sampled_from(IDS[:3]), results, max_size=3).map(
    lambda found: {i: r.model_copy(update={"task": i}) for i, r in found.items()}
)
"""Results by task id."""

ordered = st.dictionaries(st.sampled_from(IDS[:3]), orders, max_size=3).map(
    lambda found: {i: o.model_copy(update={"task": i}) for i, o in found.items()}
)
"""Orders to redo by task id."""

claims = st.builds(
    Claim,
    key=st.sampled_from(["framework", "database"]),
    value=values,
    confidence=st.sampled_from([0.2, 0.5, 0.9]),
    evidence=st.sampled_from(["", "page 1"]),
    by=st.sampled_from(["x", "y", "z"]),
    task=ids,
)

cards = st.lists(
    st.builds(
        AgentCard,
        name=st.sampled_from(["ann", "bob", "cyd", "dan"]),
        skills=st.lists(st.sampled_from(SKILLS), max_size=3).map(tuple),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda card: card.name,
)


@st.composite
def dags(draw: st.DrawFn, most: int = 6) -> tuple[Task, ...]:
    """Tasks of a DAG, in any order."""
    many = draw(st.integers(1, most))
    tasks = [
        Task(
            id=IDS[n],
            goal="work",
            needs=tuple(draw(st.lists(st.sampled_from(IDS[:n]), unique=True)) if n else ()),
            skills=tuple(draw(st.lists(st.sampled_from(SKILLS), max_size=2))),
            agent=draw(st.none() | st.sampled_from(["ann", "bob"])),
            priority=draw(st.integers(-1, 1)),
        )
        for n in range(many)
    ]
    return tuple(draw(st.permutations(tasks)))


plans = dags().map(lambda tasks: Plan(tasks=tasks))
