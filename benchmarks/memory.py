"""How fast claims are checked and a master context is rendered: 100,000 claims, 10,000 decisions.

CPU seconds of this process, the best of some tries, beside what they are to stay under.
"""

import random
import time
from collections.abc import Callable

from kapelle.nodes.prompt import messages
from kapelle.state.context import Claim, Decision, MasterContext
from kapelle.state.contradictions import contradictions
from kapelle.state.relevance import shown
from kapelle.state.skills import AgentCard
from kapelle.state.task import Brief, Task

CLAIMS, KEYS, DECISIONS, TRIES = 100_000, 5_000, 10_000, 5
LIMITS = {"claims": 2.0, "context": 0.05}


def main() -> None:
    """Print both."""
    claims, context = some_claims(), some_context()
    task = Task(goal="Write about topic7 of area3", skills=("writing",))

    def render() -> object:
        view = shown(context, task, 4_000)
        return messages(AgentCard(name="a"), "", task, Brief(context=view))

    for name, work in {"claims": lambda: contradictions(claims), "context": render}.items():
        took = best(work)
        print(f"{name:8} {took:.3f} s   (to stay under {LIMITS[name]} s)")


def best(work: Callable[[], object]) -> float:
    """CPU seconds of the fastest try."""
    tries = []
    for _ in range(TRIES):
        began = time.process_time()
        work()
        tries.append(time.process_time() - began)
    return min(tries)


def some_claims() -> list[Claim]:
    """Claims of many agents about many keys: words, quantities, plain numbers."""
    lot = random.Random(0)
    return [
        Claim(
            key=f"area{n % KEYS}.value",
            value=lot.choice(["React", f"{lot.randrange(9)} GB", lot.random()]),
            by=f"agent{n % 50}",
            task=f"t{n}",
        )
        for n in range(CLAIMS)
    ]


def some_context() -> MasterContext:
    """Many decisions."""
    keys = sorted(f"area{n % 50}.topic{n}" for n in range(DECISIONS))
    decisions = tuple(
        Decision(key=key, value=f"value number {n}", rule="vote", version=n)
        for n, key in enumerate(keys)
    )
    return MasterContext(goal="All", decisions=decisions, version=DECISIONS)


if __name__ == "__main__":
    main()
