"""The gateway of a local run: its settings, its guests' key, and how it stands."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Final

import httpx2
from pydantic import ValidationError
from sn17_contract.files import WrongShapeError
from sn17_contract.gateway import Load, Route
from sn17_contract.ready import ReadyFile
from sn17_files import write_atomically

KEY_FILE: Final = "gateway-key"
ADMIN_FILE: Final = "admin-token"
"""The admin token of a run, for all its processes."""


def gateway_env(state_dir: Path, port: int) -> dict[str, str]:
    """Settings of a gateway that only this machine reaches: its guests have no limits."""
    return {
        "SN17_PORT": str(port),
        "SN17_DATA_DIR": str(state_dir / "gateway"),
        "SN17_GENERIC_KEY": _guest_key(state_dir),
        "SN17_GUEST_CONCURRENT": "0",
        "SN17_GUEST_DAILY": "0",
        "SN17_GUEST_DAILY_BY_ADDRESS": "0",
        "SN17_RATE_ADD_TASK": "0",
        "SN17_RATE_RESULTS": "0",
        "SN17_MINER_READY_FILE": str(state_dir / "run" / "miner.json"),
        "SN17_MINER_TOKEN_FILE": str(state_dir / ADMIN_FILE),
    }


def _guest_key(folder: Path) -> str:
    """The key of this folder's runs, made by the first one; its owner alone can read the file."""
    file = folder / KEY_FILE
    if not file.exists():
        write_atomically(file, str(uuid.uuid4()).encode(), mode=0o600)
    return file.read_text().strip()


async def gateway_line(client: httpx2.AsyncClient, folder: Path) -> str | None:
    """A sentence about the gateway of the run in ``folder``; None where it has none.

    Raises:
        WrongShapeError: its ready file is of another schema.
    """
    file = folder / "run" / "gateway.json"
    if not file.exists():
        return None
    ready = ReadyFile.parse(file.read_bytes(), file)
    url = f"http://127.0.0.1:{ready.port}"
    try:
        answer = (await client.get(f"{url}{Route.GET_LOAD}")).raise_for_status()
        waiting = sum(node.available_tasks for node in Load.model_validate_json(answer.content).gateways)
    except httpx2.HTTPError:
        return f"gateway: nothing answers at {url}; the run has ended"
    except ValidationError:
        raise WrongShapeError(f"{url} is no gateway.") from None
    return f"gateway: {url}  {waiting} tasks wait; the guests' key is in {folder / KEY_FILE}"
