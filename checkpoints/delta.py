"""What delta channels are put together from: the nearest stored value, and the writes since.

The ancestors of a checkpoint are read a page at a time, and no further than the last channel needs.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import DeltaChannelHistory, PendingWrite
from sqlalchemy import Connection, select

from kapelle.checkpoints.compiled import Found
from kapelle.checkpoints.ids import version
from kapelle.checkpoints.reading import Version, View, last, small_of, values, written
from kapelle.checkpoints.tables import checkpoints, ordered

PAGE = 100
"""Checkpoints that are read at once."""


def history(
    view: View, config: RunnableConfig, channels: Sequence[str], connection: Connection
) -> Mapping[str, DeltaChannelHistory]:
    """For each channel the writes since its nearest stored value, oldest first, and that value."""
    found: dict[str, DeltaChannelHistory] = {channel: {"writes": []} for channel in channels}
    open_ = set(channels)
    target = last(view, config, connection) if open_ else None
    for page in _ancestors(connection, target):
        if not open_:
            break
        seeds = _seeds(view, connection, page, open_)
        pending = written(view, connection, page, open_)
        for row in page:
            _collect(found, open_, pending[row["seq"]], seeds.get(row["seq"], {}))
    return found


def _collect(
    found: dict[str, DeltaChannelHistory],
    open_: set[str],
    pending: Sequence[PendingWrite],
    seeds: Mapping[str, Any],
) -> None:
    """One ancestor: its own writes come after the value that is stored there."""
    for channel in tuple(open_):
        its = [write for write in pending if write[1] == channel]
        found[channel]["writes"][:0] = its
        if channel in seeds:
            found[channel]["seed"] = seeds[channel]
            open_.discard(channel)


def _ancestors(connection: Connection, target: Found | None) -> Iterator[list[Found]]:
    """The parent, its parent, and so on, in pages; branches beside the way are left out."""
    if target is None:
        return
    here = [checkpoints.c[name] == target[name] for name in ("tenant", "thread", "place")]
    in_order = select(checkpoints).where(*here, ordered(checkpoints.c.seq))
    newest_first = in_order.order_by(checkpoints.c.seq.desc()).limit(PAGE)
    seq, wanted = target["seq"], target["parent"]
    while wanted is not None:
        rows = connection.execute(newest_first.where(checkpoints.c.seq < seq)).mappings().all()
        if not rows:
            return
        page: list[Found] = []
        for row in rows:
            if row["id"] == wanted:
                page.append(row)
                wanted = row["parent"]
        seq = rows[-1]["seq"]
        yield page


def _seeds(
    view: View, connection: Connection, page: Sequence[Found], open_: set[str]
) -> dict[int, dict[str, Any]]:
    """What is stored of channels at checkpoints, by `seq`."""
    spoken: dict[int, list[Version]] = {}
    seeds: dict[int, dict[str, Any]] = {}
    for row in page:
        bare = view.bare(row)
        versions, small = bare["channel_versions"], small_of(bare)
        spot = row["thread"], bytes(row["place"])
        seeds[row["seq"]] = {c: small[c] for c in open_ if c in small}
        spoken[row["seq"]] = [
            (*spot, c, version(versions[c])) for c in open_ if c in versions and c not in small
        ]
    found = values(view, connection, {key for keys in spoken.values() for key in keys})
    for seq, keys in spoken.items():
        seeds[seq] |= {key[2]: view.load(key[0], found[key].whole) for key in keys if key in found}
    return seeds
