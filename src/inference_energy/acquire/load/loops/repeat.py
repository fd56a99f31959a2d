"""Requests of a closed loop that are sent again."""

from collections.abc import Sequence
from dataclasses import replace

from inference_energy.acquire.load.exchange.request import PlannedRequest


class Repeater:
    """Gives repeated requests their ids: unique over all workers, and none of the schedule's.

    Args:
        first_id: the first id that the schedule does not use.
        worker, workers: which process this is, of how many.

    Attributes:
        salt: whether repeats are sent under a cache salt; may be changed between cells.
    """

    def __init__(self, first_id: int, worker: int, workers: int, *, salt: bool = True) -> None:
        self._next_id = first_id + worker
        self._step = workers
        self.salt = salt

    def repeat(self, turns: Sequence[PlannedRequest]) -> list[PlannedRequest]:
        """A conversation's turns, to be sent once more."""
        repeated = []
        for request in turns:
            repeated.append(replace(request, request_id=self._next_id, salt=request.salt or self.salt))
            self._next_id += self._step
        return repeated
