"""Sends one cell's requests with the client, and records those that are not sent."""

from inference_energy.acquire.load.exchange.body import assistant_message
from inference_energy.acquire.load.exchange.client import LoadClient, Outcome
from inference_energy.acquire.load.exchange.request import PlannedRequest, RequestRecord
from inference_energy.acquire.load.exchange.settings import WorkloadSettings
from inference_energy.acquire.load.log.recorder import Recorder


class CellSender:
    """A `loops.sending.Sender` for one cell.

    Args:
        client: an open client that tells `recorder` of its requests.
        workload: the cell's.
        recorder: also told of requests that are skipped.
        worker: which process this is.
    """

    def __init__(self, client: LoadClient, workload: WorkloadSettings, recorder: Recorder, worker: int) -> None:
        self._client = client
        self._workload = workload
        self._recorder = recorder
        self._worker = worker

    async def send(self, request: PlannedRequest, scheduled_ns: int, history: bytes = b"") -> Outcome:
        """See `Sender`."""
        self._recorder.counts.offered += 1
        return await self._client.send(request, self._workload, scheduled_ns, self._worker, history)

    def skip(self, request: PlannedRequest, scheduled_ns: int, reason: str) -> None:
        """See `Sender`."""
        record = RequestRecord(
            request_id=request.request_id,
            cell=request.cell,
            worker=self._worker,
            endpoint="",
            prompt_id=request.prompt_id,
            turn=request.turn,
            scheduled_ns=scheduled_ns,
            status="skipped",
            error=reason,
            conversation=request.conversation,
            user=request.user,
        )
        self._recorder.ended(record, None)

    def extended(self, history: bytes, request: PlannedRequest, text: str | None) -> bytes:
        """See `Sender`."""
        parts = [history, request.prompt, assistant_message(text or "")]
        return b",".join(part for part in parts if part)
