"""What a worker in virtual time says of itself when the miner asks."""

from __future__ import annotations

from sn17_contract.http import WorkerState
from sn17_contract.worker import WorkerStatus


def status_of(
    url: str, state: WorkerState, models: tuple[str, ...], *, boot_id: str = "b", life_id: str = "l"
) -> WorkerStatus:
    """The worker at ``url``; what the miner does not decide by is left out."""
    return WorkerStatus(
        worker=url,
        version="0",
        boot_id=boot_id,
        life_id=life_id,
        state=state,
        reason=None,
        job=None,
        memory=None,
        models=models,
        gaussians_mean=None,
        model_processes=1,
        recycling=None,
        phase=None,
        start_seconds=None,
        last_recycle=None,
    )
