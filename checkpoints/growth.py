"""What channels held last, so that of what only grew the rest alone is stored."""

import threading
from collections import OrderedDict
from dataclasses import dataclass

from kapelle.checkpoints.values import Value

WORTH = 256
"""Bytes below which a value is stored whole."""

Channel = tuple[str, bytes, str]
"""A thread, the key of a namespace, and a channel's name."""


@dataclass(frozen=True, slots=True)
class Held:
    """A version of a channel that is stored, and its body."""

    version: str
    kind: bytes
    body: bytes


class Growth:
    """The last bodies of channels, the least used forgotten beyond `most` bytes."""

    def __init__(self, most: int = 64_000_000) -> None:
        self._most = most
        self._size = 0
        self._held: OrderedDict[Channel, Held] = OrderedDict()
        self._lock = threading.Lock()

    def rest(self, channel: Channel, value: Value) -> tuple[Value, str | None]:
        """What of a value is new, and the version that holds its beginning, if one does."""
        held = self._held.get(channel)
        if held is None or held.kind != _kind(value) or not value.body.startswith(held.body):
            return value, None
        return Value(value.type, value.head, value.body[len(held.body) :]), held.version

    def hold(self, channel: Channel, version: str, value: Value) -> None:
        """A version is stored now."""
        with self._lock:
            self._drop(channel)
            if not value.head or not WORTH <= len(value.body) <= self._most // 4:
                return
            self._held[channel] = Held(version, _kind(value), value.body)
            self._size += len(value.body)
            while self._size > self._most:
                self._drop(next(iter(self._held)))

    def _drop(self, channel: Channel) -> None:
        held = self._held.pop(channel, None)
        if held is not None:
            self._size -= len(held.body)


def _kind(value: Value) -> bytes:
    """List or dict, whatever the count."""
    if not value.head:
        return b""
    return b"dict" if value.head[0] in (0xDE, 0xDF) or value.head[0] < 0x90 else b"list"
