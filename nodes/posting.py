"""Messages between agents, journaled: what was written, and what did not reach anybody."""

from kapelle.nodes.here import Here
from kapelle.state.delivery import Post
from kapelle.state.task import Result


def tell_letters(place: Here, result: Result, task: str) -> None:
    """Each message that an agent wrote in a task."""
    for letter in result.messages:
        place.tell(
            "message",
            letter.performative,
            task=task,
            agent=letter.sender,
            data={"to": letter.receiver},
            mark=f"{letter.id}@{result.revision}",
        )


def tell_dropped(place: Here, letters: Post) -> None:
    """Each message that a limit held back, or that no channel carries."""
    for message, why in (letters.held | letters.void).items():
        place.tell("message", "dropped", why=why, mark=message)
