"""Which instances run a model whose `lamina.side_by_side_rows` is set: one on all cores, or several of one core each."""

from __future__ import annotations

from collections.abc import Sequence

from inference_server.scheduler.executor import Instance
from inference_server.scheduler.queue import WaitingLine

# Batches for each of the instances: one runs while the next one gathers.
_BATCHES = 2


class SideBySide:
    """All cores answer a caller alone soonest. Of many callers, cores that do not wait for each other at each operator answer more.

    So the instances of one core each begin when nothing runs and there is a batch for each of them to run, and one to follow; what comes
    while they run is theirs too. Else the instance on all cores takes what there is, and none of them runs beside it.
    """

    def __init__(self, instances: Sequence[Instance], *, least_rows: int) -> None:
        """`instances`: of one core each; `least_rows`: of a batch that is worth one of them."""
        self._instances = instances
        self._least_rows = least_rows

    def of_idle(self, idle: Sequence[Instance], line: WaitingLine, returning: int) -> Sequence[Instance]:
        """Those of the model's idle instances of which one may begin; `returning`: see `Batcher.form`."""
        narrow = [instance for instance in idle if instance in self._instances]
        wide = [instance for instance in idle if instance not in self._instances]
        if not wide:
            return ()
        if len(narrow) < len(self._instances) or self._is_much(line, returning):
            return narrow
        return wide

    def share(self, instance: Instance, rows: int) -> int:
        """Rows that an instance is to take of `rows` that wait, run or are about to return; 0 for what a batch may have."""
        if instance not in self._instances:
            return 0
        return max(self._least_rows, -(-rows // self._batches))

    @property
    def _batches(self) -> int:
        return _BATCHES * len(self._instances)

    def _is_much(self, line: WaitingLine, returning: int) -> bool:
        if len(line) < len(self._instances) or line.all_rows() + returning < self._batches * self._least_rows:
            return False
        # A large request is a batch by itself, and waits for nobody on all cores.
        return line.next(line.buckets()[0]).rows <= self._least_rows
