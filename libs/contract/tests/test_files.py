"""Files that one process leaves for another: what cannot be used is refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sn17_contract.files import WrongShapeError
from sn17_contract.local_network import LocalNetwork, NetworkLedger, Unjudged
from sn17_contract.ready import ReadyFile

READY = ReadyFile(schema="sn17.ready/v1", port=None, ops_port=4343, pid=7, boot_id="a1")
NETWORK = LocalNetwork.model_validate(
    {
        "schema": "sn17.local-network/v1",
        **dict.fromkeys(("snapshot_url", "ledger_url", "faults_url", "ops_url"), "http://127.0.0.1:1"),
        "validation_url": "http://127.0.0.1:1",
        "time_scale": 0.01,
        "miners": ["5a"],
        "validators": [{"hotkey": "5b", "ip": "127.0.0.1", "port": 8, "url": "http://127.0.0.1:8"}],
    }
)
TASK = {
    "task_id": "t",
    "kind": "text",
    "scene": "s",
    "hotkey": "5a",
    "assigned_at": 1.0,
    "outcome": "dropped",
    "reason": "restart",
    "score": None,
    "closed_at": 2.0,
    "delivery_seconds": 1.0,
    "reissued": 0,
    "locked": 0,
}
LEDGER = NetworkLedger.model_validate(
    {
        "schema": "sn17.ledger/v1",
        "taken_at": 3.0,
        "time_scale": 0.01,
        "validators": [
            {
                "hotkey": "5b",
                "port": 8,
                "up": True,
                "outcomes": {"dropped": 1},
                "violations": {},
                "restarts": 1,
                "tasks": [TASK],
            }
        ],
    }
)
EVERY = [READY, NETWORK, LEDGER]


@pytest.mark.parametrize("written", EVERY, ids=lambda each: type(each).__name__)
def test_what_is_written_is_read_back(written: ReadyFile | LocalNetwork | NetworkLedger) -> None:
    assert type(written).parse(written.to_json(), "x") == written


@pytest.mark.parametrize("written", EVERY, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("schema", ["sn17.ready/v99", None, 1])
def test_another_schema_is_refused_in_one_sentence(
    written: ReadyFile | LocalNetwork | NetworkLedger, schema: object
) -> None:
    raw = json.loads(written.to_json())
    raw["schema"] = schema
    with pytest.raises(WrongShapeError) as refused:
        type(written).parse(json.dumps(raw), Path("/run/x.json"))
    sentence = str(refused.value)
    assert sentence.startswith(f"/run/x.json has the schema {schema!r}, not '{written.schema_}'")
    assert "\n" not in sentence


@pytest.mark.parametrize("written", EVERY, ids=lambda each: type(each).__name__)
def test_no_missing_field_is_taken_for_a_value(written: ReadyFile | LocalNetwork | NetworkLedger) -> None:
    raw = json.loads(written.to_json())
    for field in raw:
        with pytest.raises(WrongShapeError, match="schema" if field == "schema" else field):
            type(written).parse(json.dumps({k: v for k, v in raw.items() if k != field}), "x")


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "7"])
def test_what_is_no_object_is_refused(content: str) -> None:
    with pytest.raises(WrongShapeError, match=r"^ready\.json "):
        ReadyFile.parse(content, "ready.json")


def test_a_task_that_a_validator_forgot_is_told_apart() -> None:
    assert LEDGER.validators[0].tasks[0].outcome is Unjudged.DROPPED
