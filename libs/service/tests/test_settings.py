from __future__ import annotations

import io
import json
import logging
import sys

import pytest
from pydantic import BaseModel, ConfigDict, Field
from sn17_service import ServiceSettings, configure_logging, describe_settings, load_settings, request_id
from sn17_service.settings import unknown_settings


class Chain(BaseModel):
    model_config = ConfigDict(extra="forbid")
    source: str = Field("file", description="where from")
    url: str | None = None


class MySettings(ServiceSettings):
    chain: Chain = Chain()
    api_key: str = Field("", pattern="^[a-z]*$")
    needed: int | None = None


@pytest.fixture
def _keep_logging() -> object:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("_keep_logging")
def test_nested_names_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SN17_CHAIN__URL", "http://x")
    monkeypatch.setenv("SN17_OPS_PORT", "0")
    settings = load_settings(MySettings, prog="my", argv=[])
    assert settings.chain.url == "http://x"
    assert settings.ops_port == 0


def test_help_lists_every_setting_with_its_environment_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        load_settings(MySettings, prog="my", description="does things", argv=["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for name in ("SN17_HOST", "SN17_ADMIN_TOKEN_FILE", "SN17_CHAIN__SOURCE", "SN17_CHAIN__URL"):
        assert name in text
    assert "where from" in text
    assert text.count("SN17_") >= len(describe_settings(MySettings).splitlines())


@pytest.mark.usefixtures("_keep_logging")
def test_a_mistake_ends_with_code_2_and_never_prints_the_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SN17_API_KEY", "SECRET-123")
    monkeypatch.setenv("SN17_CHAIN__COLOUR", "blue")
    monkeypatch.setenv("SN17_PORT", "tcp://10.0.0.1:80")
    with pytest.raises(SystemExit) as ended:
        load_settings(MySettings, prog="my", argv=[])
    assert ended.value.code == 2
    text = capsys.readouterr().err
    assert "SN17_API_KEY" in text
    assert "SN17_CHAIN__COLOUR" in text
    assert "SN17_PORT" in text
    assert "SECRET" not in text
    assert "blue" not in text


def test_unknown_names_are_said_with_the_nearest_one() -> None:
    environ = {"SN17_PROT": "1", "SN17_CHAIN__X": "1", "SN17_TRELLIS_PORT_9090_TCP": "1", "HOME": "/"}
    assert unknown_settings(MySettings, environ) == [
        ("SN17_PROT", "SN17_PORT"),
        ("SN17_TRELLIS_PORT_9090_TCP", None),
    ]


@pytest.mark.usefixtures("_keep_logging")
def test_json_lines_hold_level_message_extra_request_and_error() -> None:
    stream = io.StringIO()
    configure_logging("json", "INFO", stream)
    log = logging.getLogger("sn17.test")
    token = request_id.set("req-1")
    try:
        log.info("two %s", "words", extra={"path": "/x", "status": 200})
        try:
            raise RuntimeError("kaput")
        except RuntimeError:
            log.exception("failed")
    finally:
        request_id.reset(token)
    log.debug("not shown")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first["message"] == "two words"
    assert first["level"] == "info"
    assert first["status"] == 200
    assert first["request_id"] == "req-1"
    assert first["time"].endswith("Z")
    assert "kaput" in second["error"]


@pytest.mark.usefixtures("_keep_logging")
def test_human_lines_are_one_line_with_extra_fields() -> None:
    stream = io.StringIO()
    configure_logging("human", "WARNING", stream)
    logging.getLogger("sn17.test").warning("careful", extra={"ratio": 0.9})
    logging.getLogger("sn17.test").info("not shown")
    assert stream.getvalue().endswith("WARNING sn17.test: careful ratio=0.9\n")
    assert sys.stderr is not stream
