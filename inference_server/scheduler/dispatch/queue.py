"""Requests that wait for an instance: by priority, in turns between clients by weight, and in buckets of equal shapes."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from inference_server.models.values import Batching
from inference_server.scheduler.dispatch.turns import Turns
from inference_server.scheduler.dispatch.work import Bucket, Work

_EVEN: Mapping[str, float] = MappingProxyType({})
_Line = OrderedDict[int, Work]


class _ClientLine(_Line):
    """Requests of one priority, client and bucket."""

    # What its priority and its client had been given in others' turns when it was last served, or began (`Turns.surplus`).
    level_surplus = 0.0
    client_surplus = 0.0


class WaitingLine:
    """The queue of one model: every operation takes time by the clients and the batch, not by the requests that wait.

    Whose turn it is goes by priority, and among the clients of one priority by weight; what counts is the bytes that each was given.
    Others of the same bucket fill the batch. What they are given so does not count against their requests of other buckets, whose turn
    might never come otherwise.
    `weights`: shares of clients by name, 1 for those that it does not name.
    """

    def __init__(self, batching: Batching | None = None, *, weights: Mapping[str, float] = _EVEN) -> None:
        batching = batching or Batching()
        # What came since the last look, by identity: as long as all of it can go at once, nobody's turn has to be found.
        self._fresh: dict[int, Work] = {}
        # Priority → client → bucket → requests in the order of their arrival.
        self._levels: dict[int, dict[str, dict[Bucket, _ClientLine]]] = {}
        self._level_turns = Turns[int](batching.share, rank=int)
        self._client_turns = defaultdict[int, Turns[str]](lambda: Turns(lambda client: weights.get(client, 1.0)))
        # Bucket → all its requests in the order of their arrival.
        self._buckets: dict[Bucket, _Line] = {}
        self._rows: dict[Bucket, int] = {}
        # Requests by their rows.
        self._sizes: Counter[int] = Counter()
        self._counts: dict[int, int] = {}
        # The request whose turn it is; None when that has to be found.
        self._turn: Work | None = None

    def __len__(self) -> int:
        return sum(self._counts.values(), len(self._fresh))

    def __contains__(self, work: Work) -> bool:
        return id(work) in self._fresh or id(work) in self._buckets.get(work.bucket, ())

    def __iter__(self) -> Iterator[Work]:
        self._settle()
        return (work for line in self._buckets.values() for work in line.values())

    def waiting(self, level: int) -> int:
        """Requests of a priority."""
        self._settle()
        return self._counts.get(level, 0)

    def push(self, work: Work) -> None:
        """Append a request to its client's line."""
        self._fresh[id(work)] = work

    def rows_of_all(self) -> int:
        """Rows of all requests when they are of one bucket and `take_all` may take them; 0 if not."""
        if self._counts or not self._fresh:
            return 0
        works = iter(self._fresh.values())
        first = next(works)
        bucket, rows = first.bucket, first.rows
        for work in works:
            if work.bucket != bucket:
                return 0
            rows += work.rows
        return rows

    def take_all(self) -> tuple[Work, ...]:
        """Take all requests, without looking whose turn it is."""
        works = tuple(self._fresh.values())
        self._fresh.clear()
        return works

    def _settle(self) -> None:
        """Put what is fresh into the lines."""
        for work in self._fresh.values():
            self._enter(work)
        self._fresh.clear()

    def _enter(self, work: Work) -> None:
        self._turn = None
        self._level_turns.enter(work.level)
        self._client_turns[work.level].enter(work.client)
        lines = self._levels.setdefault(work.level, {}).setdefault(work.client, {})
        lines.setdefault(work.bucket, _ClientLine())[id(work)] = work
        if len(lines[work.bucket]) == 1:
            self._mark(work)
        self._buckets.setdefault(work.bucket, OrderedDict())[id(work)] = work
        self._rows[work.bucket] = self._rows.get(work.bucket, 0) + work.rows
        self._sizes[work.rows] += 1
        self._counts[work.level] = self._counts.get(work.level, 0) + 1

    def remove(self, work: Work) -> None:
        """Take a request out, wherever it stands."""
        if self._fresh.pop(id(work), None) is not None:
            return
        self._turn = None
        clients = self._levels[work.level]
        lines = clients[work.client]
        for lines_by_bucket in (lines, self._buckets):
            line = lines_by_bucket[work.bucket]
            del line[id(work)]
            if not line:
                del lines_by_bucket[work.bucket]
        if not lines:
            del clients[work.client]
            self._client_turns[work.level].leave(work.client)
        if not clients:
            del self._levels[work.level]
            self._level_turns.leave(work.level)
        self._rows[work.bucket] -= work.rows
        if not self._rows[work.bucket]:
            del self._rows[work.bucket]
        self._sizes[work.rows] -= 1
        if not self._sizes[work.rows]:
            del self._sizes[work.rows]
        self._counts[work.level] -= 1
        if not self._counts[work.level]:
            del self._counts[work.level]

    def buckets(self) -> list[Bucket]:
        """The buckets, that of the request whose turn it is first."""
        self._settle()
        if len(self._buckets) < 2:
            return list(self._buckets)
        turn = self._first().bucket
        return [turn, *(bucket for bucket in self._buckets if bucket != turn)]

    def rows(self, bucket: Bucket) -> int:
        """Rows that wait in a bucket."""
        self._settle()
        return self._rows.get(bucket, 0)

    def all_rows(self) -> int:
        """Rows of all requests."""
        return sum(self._rows.values()) + sum(work.rows for work in self._fresh.values())

    def most_rows(self) -> int:
        """Rows of the largest request; 0 where none waits."""
        return max(max(self._sizes, default=0), max((work.rows for work in self._fresh.values()), default=0))

    def oldest(self, bucket: Bucket) -> Work:
        """The request of a bucket that came first."""
        self._settle()
        return next(iter(self._buckets[bucket].values()))

    def next(self, bucket: Bucket) -> Work:
        """The request of a bucket whose turn it is."""
        self._settle()
        first = self._first()
        if first.bucket == bucket:
            return first
        lines = (
            self._levels[level][client][bucket]
            for level in list(self._level_turns.in_order())
            for client in list(self._client_turns[level].in_order())
            if bucket in self._levels[level][client]
        )
        return next(iter(next(lines).values()))

    def take(self, bucket: Bucket, room: int) -> list[Work]:
        """Take requests of a bucket until no further one fits into `room` rows, in the order of their turns."""
        self._settle()
        if bucket not in self._buckets:
            return []
        first = self._first()
        taken = [first] if first.bucket == bucket and first.rows <= room else []
        if taken:
            self._give(first, first)
        for level in list(self._level_turns.in_order()):
            left = room - sum(work.rows for work in taken)
            if left <= 0:
                break
            taken += self._take(level, bucket, left, first)
        return taken

    def _take(self, level: int, bucket: Bucket, room: int, first: Work) -> list[Work]:
        taken: list[Work] = []
        order = self._client_turns[level].in_order()
        for client in order:
            line = self._levels[level][client].get(bucket)
            if not line or (work := next(iter(line.values()))).rows > room:
                continue  # it keeps its turn
            self._give(work, first)
            taken.append(work)
            room -= work.rows
            if not room:
                break
        order.close()
        return taken

    def _give(self, work: Work, first: Work) -> None:
        """Take a request out for a batch; `first`: whose turn it is."""
        mine = work.bucket == first.bucket and work.level == first.level
        self._client_turns[work.level].charge(work.client, work.cost, surplus=not (mine and work.client == first.client))
        self._level_turns.charge(work.level, work.cost, surplus=not mine)
        self._mark(work)
        self.remove(work)

    def _first(self) -> Work:
        """The request whose turn it is, of at least one that waits."""
        if self._turn is None and len(self._buckets) == 1:
            level = self._level_turns.first()
            (line,) = self._levels[level][self._client_turns[level].first()].values()
            self._turn = next(iter(line.values()))
        elif self._turn is None:
            firsts = map(self._first_of, self._levels)
            self._turn = min(firsts, key=lambda work: self._level_turns.place(work.level, since=self._line_of(work).level_surplus))
        return self._turn

    def _first_of(self, level: int) -> Work:
        firsts = (
            (self._client_turns[level].place(client, since=line.client_surplus), next(iter(line.values())))
            for client, lines in self._levels[level].items()
            for line in lines.values()
        )
        return min(firsts, key=lambda each: (each[0], each[1].admitted))[1]

    def _mark(self, work: Work) -> None:
        line = self._line_of(work)
        line.level_surplus, line.client_surplus = self._level_turns.surplus(work.level), self._client_turns[work.level].surplus(work.client)

    def _line_of(self, work: Work) -> _ClientLine:
        return self._levels[work.level][work.client][work.bucket]
