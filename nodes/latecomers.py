"""Latecomers: who is still at work when nobody waits any more, and may yet have something to say.

They are at work no longer than the invocation that called them, and nothing waits for them.
"""

import asyncio
from typing import Any
from weakref import WeakKeyDictionary

from kapelle.nodes.patience import GRACE

_rooms: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[object, set[asyncio.Future[Any]]]] = (
    WeakKeyDictionary()
)


def leave_at_work(control: object, work: "asyncio.Future[Any]") -> None:
    """Let it go on until it is done, or the invocation is over."""
    room = _rooms.setdefault(asyncio.get_running_loop(), {})
    those = room.setdefault(control, set())
    those.add(work)
    work.add_done_callback(those.discard)


async def dismiss(control: object) -> None:
    """End all that one invocation left at work; wait until they have let go, or a little while."""
    those = _rooms.get(asyncio.get_running_loop(), {}).pop(control, set())
    for work in those:
        work.cancel()
    if those:
        await asyncio.wait(set(those), timeout=GRACE)
