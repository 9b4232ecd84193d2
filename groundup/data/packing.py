"""Packing: sequences of many lengths into rows of one length, with next to nothing left empty."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from typing import NamedTuple

TOLERANCE = 200
"""A row counts as full when less than 1 / TOLERANCE of it is empty."""


class Span(NamedTuple):
    """Positions start:stop of a sequence."""

    sequence: int
    start: int
    stop: int


def pack(sequences: Sequence[Sequence[int]], capacity: int) -> list[list[Span]]:
    """Rows of spans that cover every position of every sequence once, none over `capacity`.

    A sequence is given as the lengths of its units, the parts between which it may be cut, each at
    most `capacity`. One that fits into a row is never cut. Those of over half a row begin rows of
    their own, the largest first, the ones that must be cut last, as many units in a row as fit.
    Such a row is filled up with whatever fits best, a whole sequence or the next unit of a long
    one; only if that leaves it visibly empty is a unit of its own cut. The rest is packed the
    largest that fits first. With nothing too long, this is first-fit decreasing, which needs at
    most 11/9 of the fewest possible rows and one more (Dósa 2007).
    """
    waiting = _Pool(capacity)
    for number, units in enumerate(sequences):
        assert units and all(0 < unit <= capacity for unit in units)
        waiting.add(_Remainder(number, units))
    rows = []
    for current in waiting.over_half():
        while current.left > capacity // 2:
            waiting.remove(current)
            first = current.take(capacity)
            others, room = waiting.fill(capacity - (first.stop - first.start))
            if current.left and room > capacity // TOLERANCE:
                first = Span(first.sequence, first.start, current.cut(room))
            rows.append([first, *others])
            if current.left:
                waiting.add(current)
    while waiting.sizes:
        rows.append(waiting.fill(capacity)[0])
    return rows


def cut_units(size: int, limit: int, coarse: Sequence[int], fine: Sequence[int]) -> list[int]:
    """Lengths of the units of range(size), at most `limit` each.

    Units end at the `coarse` borders. Where that leaves one over `limit`, it is cut as late as it
    can be: at a `fine` border, else anywhere. Both kinds of borders are ascending positions.
    """
    units = []
    start = 0
    for end in [*(border for border in coarse if 0 < border < size), size]:
        while start < end:
            stop = end
            if end - start > limit:
                stop = start + limit
                reach = bisect_right(fine, stop)
                if reach and fine[reach - 1] > start:
                    stop = fine[reach - 1]
            units.append(stop - start)
            start = stop
    return units


class _Remainder:
    """What is not packed yet of one sequence."""

    __slots__ = ("left", "number", "position", "units")

    def __init__(self, number: int, units: Sequence[int]) -> None:
        self.number = number
        self.units = list(reversed(units))
        self.position = 0
        self.left = sum(units)

    def take(self, room: int) -> Span:
        """As many units as fit into `room`."""
        size = 0
        while self.units and size + self.units[-1] <= room:
            size += self.units.pop()
        return self._advance(size)

    def cut(self, room: int) -> int:
        """Take `room` positions of the next unit, which is longer than that; where they end."""
        self.units[-1] -= room
        return self._advance(room).stop

    def _advance(self, size: int) -> Span:
        start, self.position = self.position, self.position + size
        self.left -= size
        return Span(self.number, start, self.position)


class _Pool:
    """Remainders by the smallest room in which they are of use.

    That is all of the remainder if a row can hold it, else its next unit.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.sizes: list[int] = []  # ascending; those for which there is a remainder
        self.members: dict[int, dict[_Remainder, None]] = {}  # ordered sets

    def add(self, remainder: _Remainder) -> None:
        size = self._size(remainder)
        if size not in self.members:
            insort(self.sizes, size)
            self.members[size] = {}
        self.members[size][remainder] = None

    def remove(self, remainder: _Remainder) -> None:
        size = self._size(remainder)
        del self.members[size][remainder]
        if not self.members[size]:
            del self.members[size]
            self.sizes.remove(size)

    def over_half(self) -> list[_Remainder]:
        """Those of more than half a row: the largest first, but last those that no row can hold."""
        members = [member for group in self.members.values() for member in group]
        large = [member for member in members if member.left > self.capacity // 2]
        return sorted(large, key=lambda one: (one.left > self.capacity, -one.left, one.number))

    def fill(self, room: int) -> tuple[list[Span], int]:
        """Spans for `room` positions, the largest that fits each time, and the room left over."""
        spans = []
        while reach := bisect_right(self.sizes, room):
            best = next(reversed(self.members[self.sizes[reach - 1]]))
            self.remove(best)
            spans.append(best.take(room))
            room -= spans[-1].stop - spans[-1].start
            if best.left:
                self.add(best)
        return spans, room

    def _size(self, remainder: _Remainder) -> int:
        fits = remainder.left <= self.capacity
        return remainder.left if fits else remainder.units[-1]
