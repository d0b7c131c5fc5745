"""The towers of Hanoi, moved by agents who err one time in ten: a pipeline of swarms.

    python -m examples.hanoi          # 5 discs, 31 moves
    python -m examples.hanoi 10       # 10 discs, 1,023 moves

Each move is a vote of its own: three simulated agents are asked until one answer is ahead of every
other by five. Alone, an agent would get 31 moves right 4 % of the time, and 1,023 never; together
they get 1,023 right 98 % of the time, with some 6,400 votes (E. Meyerson et al., Solving a
Million-Step LLM Task with Zero Errors, 2025). Needs no model.
"""

import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import kapelle
from kapelle import Policy, Task, agent, as_agent
from kapelle.graphs import pipeline, swarm
from kapelle.nodes.agent import FunctionAgent
from kapelle.nodes.pattern import Pattern
from kapelle.state.ballot import AheadBy, by_key, expected_votes, k_min, lead_accuracy

RIGHT = 0.9
"""How often an agent's move is right."""

Pegs = list[list[int]]
"""Three pegs, the discs on each from the bottom to the top."""


def start(discs: int) -> dict[str, Any]:
    """All discs on the first peg."""
    return {"pegs": [list(range(discs, 0, -1)), [], []], "last": 0}


def moved(position: dict[str, Any], *, wrong: bool = False) -> dict[str, Any]:
    """The next move of the shortest way, or one that is not on it; and the position after it."""
    pegs: Pegs = [list(peg) for peg in position["pegs"]]
    discs, smallest = sum(map(len, pegs)), next(n for n, peg in enumerate(pegs) if 1 in peg)
    step = 1 if (discs % 2 == 0) != wrong else 2
    if position["last"] != 1:  # every other move is the smallest disc's, always the same way round
        source, target = smallest, (smallest + step) % 3
    else:
        first, second = (n for n in range(3) if n != smallest)
        tops = {n: pegs[n][-1] if pegs[n] else discs + 1 for n in (first, second)}
        source, target = (first, second) if tops[first] < tops[second] else (second, first)
        source = smallest if wrong else source
    disc = pegs[source].pop()
    pegs[target].append(disc)
    return {"move": [disc, source, target], "pegs": pegs, "last": disc}


def mover(name: str, seed: int) -> FunctionAgent:
    """An agent that says the next move, one time in ten a wrong one."""

    @agent(name=name)
    async def say(task: Task) -> dict[str, Any]:
        earlier: Any = task.inputs.get("results")
        position: Any = next(iter(earlier.values())) if earlier else task.inputs
        lot = random.Random(f"{seed}/{position['pegs']}/{task.id}")
        return moved(position, wrong=lot.random() >= RIGHT)

    return say


def hanoi(discs: int, k: int, seed: int = 0) -> Pattern:
    """A stage a move; each stage is the same swarm."""
    movers = [mover(name, seed) for name in ("ann", "bob", "cyd")]
    move = as_agent(swarm(movers, rule=AheadBy(k=k), same=by_key("move")), name="move")
    return pipeline([move] * (2**discs - 1), policy=Policy(look_back=1))


def main(discs: int) -> None:
    """Move the tower and say what it took."""
    moves = 2**discs - 1
    k = k_min(RIGHT, moves)
    print(f"{moves:,} moves, each by the first answer that is ahead by {k}.")
    print(f"Expected: {moves * expected_votes(RIGHT, k):,.0f} votes,", end=" ")
    print(f"all right {lead_accuracy(RIGHT, k) ** moves:.1%} of the time.")
    with tempfile.TemporaryDirectory() as folder:
        task = Task(goal=f"Move {discs} discs", inputs=start(discs))
        run = kapelle.run(hanoi(discs, k), task, db=str(Path(folder) / "hanoi.db"))
    left: Any = run.result.output if run.result else None
    solved = run.status == "done" and left["pegs"] == [[], [], list(range(discs, 0, -1))]
    print(f"It took {run.usage.calls:,} votes and is {'solved' if solved else 'not solved'}.")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
