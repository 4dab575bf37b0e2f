"""``POST /add_result``: the fields that must stand before the asset, and those that may come later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sn17_contract.gateway import MAX_WORKER_ID
from sn17_protocol.gateway import timestamp_seconds, valid_hotkey
from sn17_service.bodies import MultipartReader

from sn17_gateway.http.errors import bad_request, parse_uuid

MAX_REASON_BYTES: Final = 255
ASSET: Final = "asset"
LIMITS: Final = {
    "id": 64, "signature": 1024, "timestamp": 64, "worker_hotkey": 64, "validator_hotkey": 64,
    "worker_id": MAX_WORKER_ID, "assignment_token": 64, "status": 16, "reason": MAX_REASON_BYTES,
}  # fmt: skip
REQUIRED: Final = ("id", "signature", "timestamp", "worker_hotkey", "worker_id", "status")


@dataclass(frozen=True, slots=True)
class ResultHead:
    """What says whose result it is. ``token`` may still be missing when the asset begins."""

    task_id: str
    signature: str
    timestamp: str
    hotkey: str
    worker_id: str
    success: bool


class ResultForm:
    """Reads parts up to the asset; the caller reads the asset, then calls :meth:`advance` again."""

    def __init__(self, form: MultipartReader) -> None:
        self.form = form
        self._fields: dict[str, str] = {}
        self._asset = False

    async def advance(self) -> bool:
        """True when the asset's content comes next, False at the end. Raises Refusal."""
        while (name := await self.form.next_part()) is not None:
            known = "worker_hotkey" if name == "validator_hotkey" else name
            if name != ASSET and name not in LIMITS:
                raise bad_request(f"unknown part; known: {', '.join([*LIMITS, ASSET])}")
            if known in self._fields or (self._asset and name == ASSET):
                raise bad_request(f"{known} was given twice")
            if name == ASSET:
                self._asset = True
                return True
            self._fields[known] = await self.form.text(LIMITS[name], name)
        return False

    @property
    def token(self) -> str | None:
        """The assignment token, where one was given. Raises Refusal."""
        text = self._fields.get("assignment_token")
        return None if text is None else parse_uuid(text, "assignment_token")

    @property
    def reason(self) -> str:
        """Of a failure. Raises Refusal where there is none."""
        if "reason" not in self._fields:
            raise bad_request("a failure needs a reason")
        return self._fields["reason"]

    def head(self) -> ResultHead:
        """Raises Refusal where a required part is missing or malformed."""
        for name in REQUIRED:
            if name not in self._fields:
                raise bad_request(f"{name} is missing; it must stand before the asset")
        fields = self._fields
        if fields["status"] not in ("success", "failure"):
            raise bad_request("status must be success or failure")
        success = fields["status"] == "success"
        if self._asset and not success:
            raise bad_request("a failure has no asset")
        if not valid_hotkey(fields["worker_hotkey"]):
            raise bad_request("worker_hotkey must be an SS58 address of prefix 42")
        if timestamp_seconds(fields["timestamp"]) is None:
            raise bad_request("Invalid timestamp format: must be 404_GATEWAY_ and unix seconds")
        return ResultHead(
            parse_uuid(fields["id"], "id"), fields["signature"], fields["timestamp"],
            fields["worker_hotkey"], fields["worker_id"], success,
        )  # fmt: skip
