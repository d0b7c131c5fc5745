"""What comes before itself, where several say what comes before what."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

from kapelle.state.normal import Chain


def circles(orders: Iterable[Chain]) -> list[frozenset[str]]:
    """What comes before itself: the strongly connected parts of the claimed order, in order.

    After R. Tarjan, Depth-First Search and Linear Graph Algorithms, 1972; without recursion.
    """
    after: dict[str, set[str]] = {}
    for chain in orders:
        for a, b in pairwise(chain.items):
            after.setdefault(a, set()).add(b)
            after.setdefault(b, set())
    found = [part for part in _parts(after) if len(part) > 1 or part & after[min(part)]]
    return sorted(found, key=sorted)


def _parts(after: Mapping[str, set[str]]) -> Iterator[frozenset[str]]:
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    closed: set[str] = set()
    for start in sorted(after):
        work = [] if start in number else [(start, iter(sorted(after[start])))]
        while work:
            node, ways = work[-1]
            if node not in number:
                number[node] = low[node] = len(number)
                path.append(node)
            step = next((w for w in ways if w not in closed), None)
            if step is not None and step not in number:
                work.append((step, iter(sorted(after[step]))))
            elif step is not None:
                low[node] = min(low[node], number[step])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == number[node]:
                    part = frozenset(path[path.index(node) :])
                    del path[path.index(node) :]
                    closed |= part
                    yield part
