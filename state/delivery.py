"""Which messages reach whom, and when: a function of the results that were recorded."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import count
from typing import NamedTuple

from pydantic import JsonValue
from pydantic_core import to_json

from kapelle.state.approval import Escalation
from kapelle.state.message import Channel, Message
from kapelle.state.task import Failure, Result, Revision

SHOWN, LEGIBLE = 20, 500
"""Of messages that were held back, a person is shown so many, and so many characters of each."""


def stamped(messages: Iterable[Message], sender: str, task: str) -> tuple[Message, ...]:
    """Messages of one reply, with who wrote them and where, whatever they say of that."""
    stamp = {"sender": sender, "task": task}
    return tuple(
        m.model_copy(update={**stamp, "id": f"{task}/{n}"}) for n, m in zip(count(1), messages)
    )


def sent(results: Mapping[str, Result]) -> list[Message]:
    """All messages, in order of task and number; those of a redone task are its newest."""
    return [
        message.model_copy(update={"id": f"{message.id}@{result.revision}"})
        for _, result in sorted(results.items())
        if result.status in ("done", "partial")
        for message in result.messages
    ]


class Post(NamedTuple):
    """What became of all messages."""

    carried: list[Message]
    """Those that reach their receivers, in order."""
    held: dict[str, str]
    """Those beyond a limit: why, by id."""
    void: dict[str, str]
    """Those between agents that no channel links: why, by id."""


def post(
    results: Mapping[str, Result], channels: Sequence[Channel], passed: Collection[str] = ()
) -> Post:
    """Which messages the channels carry; those a person let pass in any case."""
    through: Counter[Channel] = Counter()
    replies: Counter[tuple[Channel, str]] = Counter()
    found = Post([], {}, {})
    for message in sent(results) if channels else ():
        channel = next((c for c in channels if c.links(message.sender, message.receiver)), None)
        if channel is None:
            found.void[message.id] = f"{message.sender} may not write to {message.receiver}"
        elif message.id in passed:
            found.carried.append(message)
        elif len(to_json(message.body)) > channel.most_bytes:
            found.held[message.id] = f"it has more than {channel.most_bytes} bytes"
        elif replies[channel, message.task] >= channel.batch:
            found.held[message.id] = f"a reply may have {channel.batch} messages"
        elif through[channel] >= channel.most:
            found.held[message.id] = f"the channel carries {channel.most} messages"
        else:
            through[channel] += 1
            replies[channel, message.task] += 1
            found.carried.append(message)
    return found


def overflow(held: Mapping[str, str]) -> Failure | None:
    """What a result lacks because limits of channels were reached; None if none was."""
    if not held:
        return None
    reasons = "; ".join(dict.fromkeys(held.values()))
    what = "1 message was" if len(held) == 1 else f"{len(held)} messages were"
    return Failure(kind="messages", message=f"{what} held back: {reasons}")


def ask_to_carry(task: str, held: Mapping[str, str], letters: Iterable[Message]) -> Escalation:
    """What a person is asked when a channel's limit is reached: approved, it carries these too."""
    shown: list[JsonValue] = [
        {"id": m.id, "from": m.sender, "to": m.receiver, "body": legible(m.body), "why": held[m.id]}
        for m in letters
        if m.id in held
    ]
    return Escalation(
        question=f"Deliver {len(held)} messages beyond the limit of their channel?",
        reason="; ".join(dict.fromkeys(held.values())),
        evidence=shown[:SHOWN],
        about="messages",
        task=task,
        offers=("approve", "reject"),
    )


def legible(body: JsonValue) -> str:
    """The beginning of a message, as a person is shown it."""
    return to_json(body).decode()[:LEGIBLE]


def mailed(
    results: Mapping[str, Result], channels: Sequence[Channel], passed: Collection[str] = ()
) -> dict[str, tuple[Message, ...]]:
    """What each agent is given to read: all that was written to it so far, in order."""
    found: dict[str, tuple[Message, ...]] = {}
    for message in post(results, channels, passed).carried:
        found[message.receiver] = (*found.get(message.receiver, ()), message)
    return found


def writes_to(agent: str, others: Iterable[str], channels: Sequence[Channel]) -> tuple[str, ...]:
    """Who an agent may write to."""
    return tuple(o for o in sorted(others) if any(c.links(agent, o) for c in channels))


def requested(
    results: Mapping[str, Result], letters: Iterable[Message], most: int
) -> dict[str, Revision]:
    """The orders that unread requests come to: their receiver's last task, at most `most` times."""
    done = [r for r in results.values() if r.status in ("done", "partial")]
    orders: dict[str, Revision] = {}
    for message in letters:
        own = [r for r in done if r.agent == message.receiver]
        if message.performative != "request" or any(message.id in r.heard for r in own):
            continue
        own = [r for r in own if r.revision <= most]
        if own:
            last = max(own, key=lambda r: r.task)
            orders[last.task] = Revision(task=last.task, number=last.revision + 1)
    return orders
