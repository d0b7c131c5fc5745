"""A pipeline of swarms moves a tower of Hanoi as the laws say, and no move costs more than another.

The graph of `examples/hanoi.py`, on agents who are right nine times in ten.
"""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples import hanoi
from kapelle import Database, Runs, Task
from kapelle.nodes.in_memory import in_memory
from kapelle.state.ballot import AheadBy, by_key
from kapelle.state.policy import Policy
from kapelle.state.swarm import Election
from tests.theory.voters import hold

pytestmark = pytest.mark.anyio

SEED = 0


def by_the_laws(discs: int, k: int) -> tuple[dict[str, Any], int]:
    """The last position and all votes, without a graph."""
    peers, rule = ("ann", "bob", "cyd"), AheadBy(k=k)
    election = Election(
        rule=rule, peers=peers, judge=None, rounds=0, same=by_key("move"), policy=Policy()
    )
    position: Any = hanoi.start(discs)
    votes = 0
    for _ in range(2**discs - 1):
        at = position

        def said(task: Task, at: dict[str, Any] = at) -> Any:
            lot = random.Random(f"{SEED}/{at['pegs']}/{task.id}")
            return hanoi.moved(at, wrong=lot.random() >= hanoi.RIGHT)

        held = hold(election, said)
        position, votes = held.answer, votes + held.votes
    return position, votes


def across(discs: int) -> list[list[int]]:
    """The tower where it is to go."""
    return [[], [], list(range(discs, 0, -1))]


async def test_a_pipeline_of_swarms_moves_the_tower_as_the_laws_say() -> None:
    task = Task(goal="move it", inputs=hanoi.start(4))
    graph = hanoi.hanoi(4, 3, SEED).compile()
    result = (await graph.ainvoke({"task": task}, context=in_memory()))["result"]
    position, votes = by_the_laws(4, 3)
    assert result.output == position
    assert result.usage.calls == votes
    assert result.output["pegs"] == across(4)


class Meter:
    """What was used by the time each move began."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds: list[float] = []
        self.bytes: list[int] = []
        self._seen: set[str] = set()
        self._moved = hanoi.moved
        monkeypatch.setattr(hanoi, "moved", self.moved)

    def moved(self, position: dict[str, Any], *, wrong: bool = False) -> dict[str, Any]:
        """The move; noted when it is thought of for the first time."""
        key = repr(position["pegs"])
        if key not in self._seen:
            self._seen.add(key)
            self.seconds.append(time.process_time())
            self.bytes.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
        return self._moved(position, wrong=wrong)

    @staticmethod
    def thirds(of: list[Any]) -> Iterator[float]:
        """What the second and the last third took, each."""
        third = len(of) // 3
        yield of[2 * third] - of[third]
        yield of[3 * third - 1] - of[2 * third]


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
async def test_1023_moves_are_right_and_the_last_costs_what_the_first_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = Meter(monkeypatch)
    async with Database(str(tmp_path / "hanoi.db")) as db:
        runs = Runs(db, {"hanoi": hanoi.hanoi(10, 5, SEED)})
        run = await runs.start("hanoi", Task(goal="move it", inputs=hanoi.start(10)))
    assert run.status == "done"
    assert run.result is not None
    position: Any = run.result.output
    assert position["pegs"] == across(10)
    assert run.usage.calls == by_the_laws(10, 5)[1]
    assert 6_200 < run.usage.calls < 6_600
    before, after = meter.thirds(meter.seconds)
    assert after < 1.3 * before, "a move takes no longer the more were made"
    before, after = meter.thirds(meter.bytes)
    assert after < 20_000 * len(meter.bytes) / 3, "what is kept of a move is small"
    assert after < 1.3 * before + 1_000_000, "and no more than was kept of earlier ones"
