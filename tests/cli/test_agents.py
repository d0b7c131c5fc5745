"""`kapelle agents`: who is installed here, who worked in markets, and how well."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kapelle import agent
from kapelle.checkpoints import Database
from kapelle.drills import VirtualClock
from kapelle.nodes import registry
from kapelle.nodes.agent import Agent
from kapelle.nodes.breaking import SPACE
from kapelle.nodes.measuring import NAMESAKES, introduce, record
from kapelle.nodes.registry import InstalledRegistry
from kapelle.state.breaker import Breaker
from kapelle.state.errors import Misbuilt
from kapelle.state.reputation import Outcome
from kapelle.state.skills import AgentCard, identity
from kapelle.state.task import Task
from tests.cli.conftest import Call
from tests.cli.looking import is_one_line


def an_agent(name: str, *skills: str) -> Agent:
    """An agent."""
    return agent(name=name, skills=skills)(lambda task: name)


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Installs agents, as packages do: pairs of an entry's name and what it leads to."""

    def install(*offered: tuple[str, object]) -> None:
        def load(what: object) -> object:
            if isinstance(what, Exception):
                raise what
            return what

        entries = [
            SimpleNamespace(name=name, value=f"package:{name}", load=lambda w=what: load(w))
            for name, what in offered
        ]
        monkeypatch.setattr(registry, "entry_points", lambda group: entries)

    return install


@pytest.fixture
def market(folder: Path) -> None:
    """A database in which two agents worked."""

    async def work() -> None:
        async with Database("kapelle.db") as db:
            cards = [AgentCard(name="ann", skills=("math",)), AgentCard(name="dr. bob")]
            await introduce(db.store, cards, 1_700_000_000.0)
            await record(
                db.store,
                [
                    Outcome(id=f"{name}/{n}", agent=name, skills=("math",), score=score, at=n)
                    for name, score in (("ann", 1.0), ("dr. bob", 0.0))
                    for n in range(3)
                ],
            )

    VirtualClock().run(work())


@pytest.mark.usefixtures("market")
def test_agents_are_listed_with_what_was_measured(call: Call) -> None:
    known = {k["card"]["name"]: k for k in json.loads(call("agents", "--json").stdout)}
    assert {n: (k["health"], k["outcomes"]) for n, k in known.items()} == {
        "ann": ("working", 3),
        "dr. bob": ("failing", 3),
    }
    assert "dr. bob" in call("agents").stdout
    (only,) = json.loads(call("agents", "--skill", "math", "--json").stdout)
    assert only["card"]["name"] == "ann"


@pytest.mark.usefixtures("market")
def test_one_agent_is_shown_in_full_and_its_card_can_be_read_again(call: Call) -> None:
    shown = call("agents", "show", "ann").stdout
    assert "working" in shown
    assert "math" in shown
    told = json.loads(call("agents", "show", "dr. bob", "--json").stdout)
    assert AgentCard.model_validate(told["card"]).name == "dr. bob"
    assert [o["score"] for o in told["last"]] == [0, 0, 0]
    assert told["reputation"]["overall"]["good"] == 0


def test_who_nobody_knows_is_one_line(call: Call, packages: Any) -> None:
    packages(("ann", an_agent("ann")))
    result = call("agents", "show", "eve")
    assert (result.exit_code, is_one_line(result.stderr)) == (2, True)
    assert "known are ann" in result.stderr


def test_installed_agents_are_listed_without_a_database(call: Call, packages: Any) -> None:
    packages(("ann", an_agent("ann", "math.algebra")))
    (known,) = json.loads(call("agents", "--skill", "math", "--json").stdout)
    assert (known["card"]["name"], known["installed"], known["health"]) == ("ann", True, "new")
    assert not Path("kapelle.db").exists()


def test_no_card_claims_another_s_name(call: Call, packages: Any) -> None:
    packages(
        ("ann", an_agent("ann")),
        ("false", an_agent("ann")),
        ("twice", an_agent("twice")),
        ("twice", an_agent("twice")),
        ("broken", ImportError("no such module")),
        ("number", 7),
    )
    known = json.loads(call("agents", "--json").stdout)
    assert [k["card"]["name"] for k in known] == ["ann"]


@pytest.mark.usefixtures("market")
def test_a_card_cannot_take_a_name_the_database_knows(call: Call) -> None:
    async def come(card: AgentCard, day: int = 0) -> None:
        async with Database("kapelle.db") as db:
            await introduce(db.store, [card], 1_800_000_000.0 + 86_400 * day)

    for day, skills in enumerate([("law",), *((f"s{n}",) for n in range(20))]):
        VirtualClock().run(come(AgentCard(name="ann", skills=skills), day))
    told = json.loads(call("agents", "show", "ann", "--json").stdout)
    assert (told["card"]["skills"], told["others"][0]["skills"]) == (["math"], ["law"])
    assert len(told["others"]) == NAMESAKES - 1
    assert json.loads(call("agents", "--skill", "law", "--json").stdout) == []
    assert "kapelle agents forget" in call("agents", "show", "ann").stdout
    call("agents", "forget", "ann")
    VirtualClock().run(come(AgentCard(name="ann", skills=("law",))))
    told = json.loads(call("agents", "show", "ann", "--json").stdout)
    assert (told["card"]["skills"], told["others"], told["outcomes"]) == (["law"], [], 3)


@pytest.mark.usefixtures("market")
def test_whom_runs_leave_alone_is_not_well(call: Call) -> None:
    async def open_breaker() -> None:
        async with Database("kapelle.db") as db:
            for card, left_alone in (
                (AgentCard(name="ann", skills=("math",)), True),
                (AgentCard(name="dr. bob"), False),
                (AgentCard(name="dr. bob", skills=("crime",)), True),  # another of that name
            ):
                breaker = Breaker(open=left_alone, since=1.0)
                await db.store.aput(SPACE, identity(card), breaker.model_dump())

    VirtualClock().run(open_breaker())
    health = {k["card"]["name"]: k["health"] for k in json.loads(call("agents", "--json").stdout)}
    assert health == {"ann": "left alone", "dr. bob": "failing"}


PACKAGE = """
from kapelle import agent

@agent(skills=["math.algebra"])
def solver(task):
    return 42

thief = agent(name="solver")(lambda task: 0)
"""


@pytest.mark.slow
def test_agents_of_a_package_that_is_installed_are_found(tmp_path: Path) -> None:
    """A folder with a distribution's metadata is what installing a package leaves behind."""
    (tmp_path / "algebra.py").write_text(PACKAGE)
    info = tmp_path / "algebra-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: algebra\nVersion: 1.0\n")
    offers = "solver = algebra:solver\nthief = algebra:thief\ngone = algebra:gone\n"
    (info / "entry_points.txt").write_text(f"[kapelle.agents]\n{offers}")
    done = subprocess.run(
        [sys.executable, "-m", "kapelle", "agents", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    (known,) = json.loads(done.stdout)
    assert (known["card"]["name"], known["card"]["skills"]) == ("solver", ["math.algebra"])
    assert known["installed"] is True


def test_the_process_s_own_agents_keep_their_names(packages: Any) -> None:
    packages(("ann", an_agent("ann", "math")), ("bob", an_agent("bob", "math")))
    known, own = InstalledRegistry(), an_agent("ann", "math")
    known.admit(own)
    assert known.find(Task(goal="x", skills=("math",)))[0] is own
    assert [a.card.name for a in known.find(Task(goal="x"))] == ["ann", "bob"]
    with pytest.raises(Misbuilt, match="another name"):
        known.admit(an_agent("ann"))
