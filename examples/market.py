"""A market without a model: translators bid, one of them boasts, and loses its share.

    python -m examples.market

Each round is a run of its own on one database; what was measured in one counts in the next.
"""

import random
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import kapelle
from kapelle import Policy, Task, agent
from kapelle.graphs import marketplace
from kapelle.nodes.agent import FunctionAgent
from kapelle.nodes.pattern import Pattern
from kapelle.state.skills import Ontology

SKILLS = Ontology.parse("translating: [french, greek]")
TRUE = {"boaster": 0.2, "modest": 0.8, "steady": 0.75}
SAYS = {"boaster": 0.99, "modest": 0.7, "steady": 0.75}
ROUNDS = 20


def translator(name: str, lot: random.Random) -> FunctionAgent:
    """Bids with the confidence it names, and succeeds as often as it does."""

    @agent(name=name, skills=["french", "greek"], price=2_000, confidence=SAYS[name])
    def translate(task: Task) -> str:
        if lot.random() > TRUE[name]:
            raise ValueError("the words escape me")
        return f"{task.goal}, by {name}"

    return translate


def market(seed: int = 7) -> Pattern:
    """The market of three translators."""
    lot = random.Random(seed)
    translators = [translator(name, lot) for name in TRUE]
    return marketplace(translators, ontology=SKILLS, policy=Policy(attempts=1, backoff=0))


def main() -> None:
    """Twenty texts, one after the other; who got them."""
    with TemporaryDirectory() as folder:
        db, graph = str(Path(folder) / "market.db"), market()
        first: Counter[str] = Counter()
        for number in range(ROUNDS):
            task = Task(id=f"text{number}", goal=f"Text {number}", skills=("greek",))
            run = kapelle.run(graph, task, db=db)
            done = run.result.agent if run.result else "nobody"
            first[done or "nobody"] += 1
            print(f"text {number:2}: {run.status} by {done}")
        print("\n" + ", ".join(f"{name} did {n}" for name, n in first.most_common()))


if __name__ == "__main__":
    main()
