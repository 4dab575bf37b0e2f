"""Settings and key: mistakes are told at once, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bittensor_wallet import Keypair
from pydantic import ValidationError
from sn17_miner.app import hotkey_of, serve
from sn17_miner.settings import MinerSettings
from sn17_protocol.wallet import WalletError, write_hotkey

GOOD: dict[str, Any] = {
    "hotkey_file": "hotkey",
    "chain": {"source": "http", "url": "http://127.0.0.1:1/snapshot"},
    "workers": "http://127.0.0.1:1, http://127.0.0.1:2/",
    "fixer_url": "http://127.0.0.1:3/",
    "state_dir": "state",
}


def test_lists_are_comma_separated_and_urls_lose_their_last_slash() -> None:
    settings = MinerSettings(**GOOD)
    assert settings.workers == ("http://127.0.0.1:1", "http://127.0.0.1:2")
    assert settings.fixer_url == "http://127.0.0.1:3"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"workers": ""}, "SN17_WORKERS"),
        ({"workers_dns": "trellis:10006"}, "one of the two"),
        ({"workers": "", "workers_dns": "trellis"}, "name:port"),
        ({"fixer_url": "fixer:8080"}, "http://"),
        ({"chain": {"source": "http"}}, "SN17_CHAIN__URL"),
        ({"chain": {"source": "file"}}, "SN17_CHAIN__PATH"),
        ({"chain": {"source": "sdk", "websocket": "x"}}, "Extra inputs"),
        ({"enhance": {"text_template": "no place"}}, "{prompt}"),
        ({"max_tasks": 0}, "greater than or equal to 1"),
        ({"gateways": [{"name": "validators", "url": "http://a"}]}, "own door"),
        ({"gateways": [{"name": "A b", "url": "http://a"}]}, "gateways.0.name"),
        ({"gateways": [{"name": "a", "url": "a:8404"}]}, "http://"),
        ({"gateways": [{"name": "a", "url": "http://a", "weight": 0}]}, "greater than 0"),
        ({"gateways": [{"name": "a", "url": "http://a"}] * 2}, "a name of its own"),
        ({"gateways": [{"name": f"g{n}", "url": "http://a"} for n in range(9)]}, "at most 8"),
        ({"fast_lane": "always"}, "fast_lane"),
    ],
)
def test_mistakes_are_named(change: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError) as error:
        MinerSettings(**{**GOOD, **change})
    assert where in str(error.value)


def test_only_protocol_times_are_scaled() -> None:
    policy = MinerSettings(**GOOD, time_scale=0.01, stall_seconds=7).policy()
    assert (policy.base_cooldown, policy.lock, policy.stall) == (3.0, 0.3, 7.0)
    assert policy.jitter == 0.2


def test_the_hotkey_must_have_the_address_that_was_told(tmp_path: Path) -> None:
    keypair = Keypair.create_from_uri("//someone")
    write_hotkey(tmp_path / "hotkey", keypair)
    settings = {**GOOD, "hotkey_file": tmp_path / "hotkey"}
    good = MinerSettings(**settings, hotkey_address=keypair.ss58_address)
    assert hotkey_of(good).ss58_address == keypair.ss58_address
    other = MinerSettings(**settings, hotkey_address=Keypair.create_from_uri("//other").ss58_address)
    with pytest.raises(WalletError, match="SN17_HOTKEY_ADDRESS"):
        hotkey_of(other)


def test_a_state_folder_that_cannot_be_used_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_hotkey(tmp_path / "hotkey", Keypair.create_from_uri("//someone"))
    (tmp_path / "file").touch()
    settings = {**GOOD, "hotkey_file": tmp_path / "hotkey", "state_dir": tmp_path / "file" / "state"}
    assert serve(MinerSettings(**settings)) == 1
    assert "SN17_STATE_DIR" in caplog.text
