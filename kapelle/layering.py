"""Layers for a drawing: which box stands in which row, in what order, and where.

After K. Sugiyama, S. Tagawa, M. Toda, Methods for Visual Understanding of Hierarchical System
Structures, IEEE Trans. SMC 11, 1981: turn around what leads back, put each box below what leads to
it, lay a chain of points where an edge passes a row, order rows by the mean of their neighbours.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise

Arrow = tuple[str, str]
"""From one box to another."""
Knot = str | tuple[str, str, int]
"""A box, or the point where an arrow passes a row."""

ROW_GAP, GAP = 56.0, 28.0
"""Between rows, and between boxes of a row."""
SWEEPS = 12


@dataclass
class Layout:
    """Where everything stands; y grows downwards."""

    sizes: Mapping[Knot, tuple[float, float]]
    rows: list[list[Knot]]
    x: dict[Knot, float] = field(default_factory=dict)
    """Middles."""
    y: dict[Knot, float] = field(default_factory=dict)
    """Middles."""
    paths: dict[Arrow, list[Knot]] = field(default_factory=dict)
    """What each arrow passes, from its own beginning to its own end."""
    width: float = 0.0
    height: float = 0.0


def lay_out(sizes: Mapping[str, tuple[float, float]], arrows: Sequence[Arrow]) -> Layout:
    """Place boxes of these sizes; the first is the topmost, the last the lowest.

    >>> layout = lay_out({"a": (10, 10), "b": (10, 10)}, [("a", "b")])
    >>> layout.y["a"] < layout.y["b"], layout.x["a"] == layout.x["b"]
    (True, True)
    """
    arrows = [arrow for arrow in dict.fromkeys(arrows) if arrow[0] != arrow[1]]
    back = _leading_back(list(sizes), arrows)
    down = {arrow: (arrow[1], arrow[0]) if arrow in back else arrow for arrow in arrows}
    rank = _ranks(list(sizes), set(down.values()))
    paths = {arrow: _path(arrow, *ends, rank) for arrow, ends in down.items()}
    rows = _rows(rank, paths.values())
    all_sizes: dict[Knot, tuple[float, float]] = dict.fromkeys(chain(*rows), (8.0, 0.0))
    all_sizes.update(sizes)
    layout = Layout(all_sizes, rows)
    links = [pair for path in paths.values() for pair in pairwise(path)]
    above, below = _neighbours(links), _neighbours([(b, a) for a, b in links])
    layout.rows = _ordered(rows, above, below)
    _place(layout, above, below)
    layout.paths = {a: path[::-1] if a in back else path for a, path in paths.items()}
    return layout


def _leading_back(boxes: Sequence[str], arrows: Sequence[Arrow]) -> set[Arrow]:
    """The arrows that close a circle, going through the boxes from the first on."""
    onward: dict[str, list[str]] = {box: [] for box in boxes}
    for start, end in arrows:
        onward[start].append(end)
    back: set[Arrow] = set()
    done: set[str] = set()
    for box in boxes:
        trail, open_ = [(box, iter(onward[box]))], {box}
        while trail and box not in done:
            here, rest = trail[-1]
            after = next(rest, None)
            if after is None:
                trail.pop()
                open_.discard(here)
                done.add(here)
            elif after in open_:
                back.add((here, after))
            elif after not in done:
                trail.append((after, iter(onward[after])))
                open_.add(after)
    return back


def _ranks(boxes: Sequence[str], arrows: Iterable[Arrow]) -> dict[str, int]:
    """Each box below the lowest that leads to it; the last one below all, if it leads nowhere."""
    before: dict[str, list[str]] = {box: [] for box in boxes}
    for start, end in arrows:
        before[end].append(start)
    rank: dict[str, int] = {}

    def of(box: str) -> int:
        if box not in rank:
            rank[box] = max((of(b) + 1 for b in before[box]), default=0)
        return rank[box]

    for box in boxes:
        of(box)
    last = boxes[-1]
    if len(boxes) > 1 and not any(last in starts for starts in before.values()):
        rank[last] = 1 + max(rank[box] for box in boxes[:-1])
    return rank


def _path(arrow: Arrow, top: str, bottom: str, rank: Mapping[str, int]) -> list[Knot]:
    between: list[Knot] = [(*arrow, row) for row in range(rank[top] + 1, rank[bottom])]
    return [top, *between, bottom]


def _rows(rank: Mapping[str, int], paths: Iterable[Sequence[Knot]]) -> list[list[Knot]]:
    rows: list[list[Knot]] = [[] for _ in range(max(rank.values()) + 1)]
    for box, row in rank.items():
        rows[row].append(box)
    for path in paths:
        for knot in path[1:-1]:
            rows[int(knot[2])].append(knot)
    return rows


def _neighbours(links: Iterable[tuple[Knot, Knot]]) -> dict[Knot, list[Knot]]:
    found: dict[Knot, list[Knot]] = {}
    for start, end in links:
        found.setdefault(end, []).append(start)
    return found


def _ordered(
    rows: list[list[Knot]],
    above: Mapping[Knot, Sequence[Knot]],
    below: Mapping[Knot, Sequence[Knot]],
) -> list[list[Knot]]:
    """The rows in the order with the fewest crossings that some sweeps down and up found."""
    best, fewest = rows, _crossings(rows, above)
    for sweep in range(SWEEPS):
        rows = [list(row) for row in rows]
        down = sweep % 2 == 0
        numbers = range(1, len(rows)) if down else range(len(rows) - 2, -1, -1)
        for number in numbers:
            other = rows[number - 1 if down else number + 1]
            _sort(rows[number], other, above if down else below)
        crossings = _crossings(rows, above)
        if crossings < fewest:
            best, fewest = rows, crossings
    return best


def _sort(row: list[Knot], other: Sequence[Knot], near: Mapping[Knot, Sequence[Knot]]) -> None:
    at = {knot: place for place, knot in enumerate(other)}
    own = {knot: float(place) for place, knot in enumerate(row)}
    row.sort(key=lambda knot: _mean([at[k] for k in near.get(knot, ()) if k in at], own[knot]))


def _crossings(rows: Sequence[Sequence[Knot]], above: Mapping[Knot, Sequence[Knot]]) -> int:
    count = 0
    for upper, lower in pairwise(rows):
        at = {knot: place for place, knot in enumerate(upper)}
        ends = [at[k] for knot in lower for k in sorted(above.get(knot, ()), key=at.__getitem__)]
        count += sum(a > b for i, a in enumerate(ends) for b in ends[i + 1 :])
    return count


def _place(
    layout: Layout, above: Mapping[Knot, Sequence[Knot]], below: Mapping[Knot, Sequence[Knot]]
) -> None:
    for row in layout.rows:
        _spread(layout, row, dict.fromkeys(row, 0.0))
    for sweep in range(2 * SWEEPS):
        near = above if sweep % 2 == 0 else below
        for row in layout.rows if sweep % 2 == 0 else reversed(layout.rows):
            wish = {k: _mean([layout.x[n] for n in near.get(k, ())], layout.x[k]) for k in row}
            _spread(layout, row, wish)
    left = min(layout.x[k] - layout.sizes[k][0] / 2 for row in layout.rows for k in row)
    layout.x = {knot: x - left for knot, x in layout.x.items()}
    layout.width = max(layout.x[k] + layout.sizes[k][0] / 2 for row in layout.rows for k in row)
    for row in layout.rows:
        tall = max(layout.sizes[knot][1] for knot in row)
        layout.y.update(dict.fromkeys(row, layout.height + tall / 2))
        layout.height += tall + ROW_GAP
    layout.height -= ROW_GAP


def _spread(layout: Layout, row: Sequence[Knot], wish: Mapping[Knot, float]) -> None:
    """As near to what each wishes as order and gaps allow: least squares, by pooling neighbours."""
    offset, at = [], 0.0
    for knot in row:
        at += layout.sizes[knot][0] / 2
        offset.append(at)
        at += layout.sizes[knot][0] / 2 + GAP
    pools: list[tuple[float, int]] = []
    for knot, off in zip(row, offset, strict=True):
        mean, size = wish[knot] - off, 1
        while pools and pools[-1][0] > mean:
            other, count = pools.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        pools.append((mean, size))
    starts = [mean for mean, size in pools for _ in range(size)]
    for knot, start, off in zip(row, starts, offset, strict=True):
        layout.x[knot] = start + off


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default
