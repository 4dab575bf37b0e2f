"""Prompts longer than the text model reads, as callers, logs and metrics see them."""

from __future__ import annotations

import json
import logging
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from sn17_trellis.prompt_tokens import count_cut_in, count_cut_of, uncounted
from sn17_trellis.settings import WorkerSettings

pytest.importorskip("tokenizers", reason="needs the extra 'torch'")

TEXT_MODEL = Path(str(resources.files("sn17_trellis") / "data" / "mini-text" / "text"))
LIMIT = json.loads((TEXT_MODEL / "config.json").read_text())["max_position_embeddings"]
LONG = "a red cube on a blue table " * 36


def test_tokens_behind_the_models_length_are_counted() -> None:
    count = count_cut_in(TEXT_MODEL)
    assert count("a red cube") == 0
    assert (count(LONG) or 0) > 0
    more = count(LONG + "and a green ball")
    assert more is not None
    assert more > (count(LONG) or 0)


def test_the_limit_is_the_models_own(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((TEXT_MODEL / "tokenizer.json").read_bytes())
    (tmp_path / "config.json").write_text('{"text_config": {"max_position_embeddings": 4}}')
    (tmp_path / "other").mkdir()
    short, usual = count_cut_in(tmp_path)(LONG), count_cut_in(TEXT_MODEL)(LONG)
    assert short is not None
    assert usual is not None
    assert short - usual == LIMIT - 4


def test_callers_logs_and_metrics_are_told(
    new_worker: Any, wait_until: Any, caplog: pytest.LogCaptureFixture
) -> None:
    live = new_worker(backend="torch")
    live.start()
    wait_until(lambda: live.state()["state"] == "ready")
    cut = count_cut_in(TEXT_MODEL)(LONG)
    with caplog.at_level(logging.WARNING):
        answer = live.data("POST", "/generate", data={"prompt": LONG})
    assert answer.status_code == 200
    assert answer.headers["sn17-prompt-tokens-cut"] == str(cut)
    assert live.service.registry.get_sample_value("sn17_prompt_tokens_cut_total") == cut
    assert [record.tokens_cut for record in caplog.records if hasattr(record, "tokens_cut")] == [cut]
    short = live.data("POST", "/generate", data={"prompt": "a red cube"})
    assert short.headers["sn17-prompt-tokens-cut"] == "0"
    assert live.service.registry.get_sample_value("sn17_prompt_tokens_cut_total") == cut


def test_what_is_not_counted_is_not_told_as_none_cut(running: Any) -> None:
    answer = running.data("POST", "/generate", data={"prompt": LONG})
    assert answer.status_code == 200
    assert "sn17-prompt-tokens-cut" not in answer.headers


def test_missing_files_are_a_warning_that_names_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = WorkerSettings(backend="torch", text_checkpoint=tmp_path, spool_dir=tmp_path)
    with caplog.at_level(logging.WARNING):
        assert count_cut_of(settings) is uncounted
    assert "pipeline.json" in caplog.text
