"""A clerk who may look addresses up, and sends mails only once a person has seen them.

    python -m examples.mails            # a scripted model; nothing is sent anywhere

The run waits for a person twice: each mail is an ask of its own. Here the first is approved, the
second is changed.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from langchain_core.language_models import BaseChatModel

from kapelle import Approval, Database, ModelAgent, Runs, consequential
from kapelle.drills import Call, LoopbackModel
from kapelle.graphs import pipeline
from kapelle.nodes.pattern import Pattern

SCRIPT = [
    [
        Call("send_mail", {"to": "ann@example.org", "text": "The pilot goes on."}),
        Call("send_mail", {"to": "all@example.org", "text": "The pilot goes on."}),
    ],
    "Both know.",
]


def office(model: BaseChatModel, outbox: list[str]) -> Pattern:
    """A line of one clerk, who puts mails into the outbox."""

    @consequential(approve=True)
    def send_mail(to: str, text: str) -> str:
        """Send a mail."""
        outbox.append(f"{to}: {text}")
        return f"sent to {to}"

    return pipeline([ModelAgent("clerk", model, tools=[send_mail])])


def main(folder: Path) -> list[str]:
    """Have two mails sent; what was sent."""
    outbox: list[str] = []
    with LoopbackModel(SCRIPT) as server, Database(str(folder / "mails.db")) as db:
        runs = Runs(db, {"office": office(server.model(), outbox)}).sync
        run = runs.start("office", "Tell them that the pilot goes on.")
        while run.asks:
            ask = run.asks[0]
            shown: Any = ask.evidence
            mail = shown["action_requests"][0]["args"]
            print(f"{ask.question} {mail}")
            answer = Approval(decision="approve", by="ann")
            if mail["to"].startswith("all@"):
                value = {**mail, "to": "bob@example.org"}
                answer = Approval(decision="edit", by="ann", value=value)
            run = runs.answer(ask.id, answer)
        print(f"{run.status}: {run.result.output if run.result else ''}")
    return outbox


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        print(*main(Path(folder)), sep="\n")
