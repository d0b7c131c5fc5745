"""Checkpoints folded small: of what they say in every step the same is said by reference.

A checkpoint names its channels and their versions again and again, and is stored at every step.
What nearly all of them say stands in a dictionary that is part of the format.
"""

import zlib

from kapelle.state.errors import Unreadable

FOLDED = "folded"
"""The type of msgpack that is folded."""

MOST = 1_000_000
"""Bytes that are folded at most, so that no row unfolds to more."""

DICTIONARY = (
    b"__interrupt____error____pregel_tasks__resume__"
    b"\x86\xa1v\x04\xa2ts\xd9 2026-01-01T00:00:00.000000+00:00"
    b"\xb0channel_versions\x83\xa9__start__\xb30000000002."
    b"\xadversions_seen\x83\xa9__input__\x80\xa9__start__\x81\xa9__start__\xb30000000001."
    b"\xb0updated_channels\x92\xabbranch:to:\xa8messages"
    b"\xaechannel_values\x81\xabbranch:to:\xc0\xb30000000001."
)
"""Never changed: what was folded with it is unfolded with it. Another gets another type."""


def fold(kind: str, data: bytes) -> tuple[str, bytes]:
    """Msgpack as it is stored; all else, and what is long, as it is."""
    if kind != "msgpack" or len(data) > MOST:
        return kind, data
    folder = zlib.compressobj(1, zlib.DEFLATED, -12, 4, zdict=DICTIONARY)
    return FOLDED, folder.compress(data) + folder.flush()


def unfold(kind: str, data: bytes, thread: str = "?") -> tuple[str, bytes]:
    """What `fold` was given; `Unreadable` if it is not that."""
    if kind != FOLDED:
        return kind, data
    unfolder = zlib.decompressobj(-12, zdict=DICTIONARY)
    try:
        unfolded = unfolder.decompress(data, MOST)
    except zlib.error as error:
        raise Unreadable(thread=thread, why=str(error)) from error
    if not unfolder.eof or unfolder.unused_data:
        raise Unreadable(thread=thread, why="a checkpoint was cut short, or is none")
    return "msgpack", unfolded
