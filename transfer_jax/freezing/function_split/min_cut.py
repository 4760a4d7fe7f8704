"""The minimum cut of a directed graph, by SciPy."""

import collections
from collections.abc import Hashable, Iterable

import numpy as np

INFINITE = float("inf")
"""Capacity of an edge that no cut contains."""
_UNCUT = 1 << 29
"""Capacity in place of infinity for SciPy, which computes with 32-bit integers."""


def min_cut(
    edges: Iterable[tuple[Hashable, Hashable, float]], source: Hashable, sink: Hashable
) -> tuple[float, set[Hashable]] | None:
    """Returns the smallest cut between two nodes; of several, the one nearest to the sink.

    Args:
        edges: Edges `(from, to, capacity)`; capacities are at least 0, or `INFINITE`.
        source: The node that the flow starts from.
        sink: The node that it ends at.

    Returns:
        The capacity of the cut, and the nodes on the side of the sink; None if every cut is infinite.
    """
    capacities: dict[tuple[int, int], float] = collections.defaultdict(float)
    numbers: dict[Hashable, int] = {None: 0, sink: 1, source: 2}
    for start, end, capacity in edges:
        key = (numbers.setdefault(start, len(numbers)), numbers.setdefault(end, len(numbers)))
        capacities[key] += capacity
    capacities[0, 2] = INFINITE  # One edge, so that the flow stays below 32 bits.
    bound = sum(each for each in capacities.values() if each != INFINITE)
    found = _min_cut(capacities, bound)
    if found is None:
        return None
    price, reached = found
    if bound > _UNCUT / 2:  # Capacities were rounded; the second pass needs a smaller range.
        price, reached = _min_cut(capacities, 1.01 * price) or found
    return price, {node for node, number in numbers.items() if number in reached}


def _min_cut(capacities: dict[tuple[int, int], float], bound: float) -> tuple[float, set[int]] | None:
    """Returns the smallest cut between the nodes 0 and 1; None if it is above a bound."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import maximum_flow

    unit = max(1.0, 2 * bound / _UNCUT)
    starts, ends = np.array([*capacities]).T
    whole = [_UNCUT if each > bound else round(each / unit) for each in capacities.values()]
    size = int(max(starts.max(), ends.max())) + 1
    graph = coo_array((np.array(whole, np.int32), (starts, ends)), shape=(size, size)).tocsr()
    flow = maximum_flow(graph, 0, 1)
    if flow.flow_value >= _UNCUT:
        return None
    residual = (graph - flow.flow).tocoo()
    backward = collections.defaultdict(list)
    for start, end, left in zip(*residual.coords, residual.data, strict=True):
        if left > 0:
            backward[end].append(start)
    reached, waiting = {1}, [1]
    while waiting:
        for node in backward[waiting.pop()]:
            if node not in reached:
                reached.add(node)
                waiting.append(node)
    return flow.flow_value * unit, reached
