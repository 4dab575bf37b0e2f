"""The torch backend behind the real service: text, image and empty structures, on random weights."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="the engine needs the 'torch' extra")
pytest.importorskip("transformers", reason="the engine needs the 'torch' extra")

from sn17_service import Service  # noqa: E402
from sn17_service.testing import ServiceThread  # noqa: E402
from sn17_splats import read_ply  # noqa: E402
from sn17_trellis.http import build_app  # noqa: E402
from sn17_trellis.serve import connect  # noqa: E402
from sn17_trellis.settings import WorkerSettings  # noqa: E402
from sn17_trellis.torch_backend import create_backend  # noqa: E402
from sn17_trellis.worker import Worker  # noqa: E402

WISHES = {"structure_steps": "3", "latent_steps": "2"}


@pytest.fixture
def new_service(tmp_path: Path) -> Iterator[Callable[..., ServiceThread]]:
    made: list[ServiceThread] = []

    def make(**checkpoints: Path) -> ServiceThread:
        (tmp_path / "token").write_text("a token")
        settings = WorkerSettings(
            port=0,
            ops_port=0,
            admin_token_file=tmp_path / "token",
            spool_dir=tmp_path / "spool",
            worker_name="torch-1",
            device="cpu",
            preset="fast",
            **checkpoints,
        )
        service = Service("trellis", "0", settings)
        worker = Worker(service, settings, create_backend(settings), tick_seconds=0.02)
        connect(service, settings, worker)
        made.append(ServiceThread(service, build_app(service, settings, worker), token="a token"))
        made[-1].start()
        return made[-1]

    yield make
    for instance in made:
        if instance.exit_code is None:
            instance.stop()


def picture() -> bytes:
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[16:48, 16:48] = (200, 30, 30, 255)
    out = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(out, "PNG")
    return out.getvalue()


def test_text_and_image_through_the_service(
    tmp_path: Path, new_service: Any, wait_until: Any, write_checkpoint: Any
) -> None:
    write_checkpoint(tmp_path / "text", "Text")
    write_checkpoint(tmp_path / "image", "Image")
    live = new_service(
        text_checkpoint=tmp_path / "text", image_checkpoint=tmp_path / "image", photographs="refused"
    )
    wait_until(lambda: live.data("GET", "/v1/worker").json()["state"] == "ready")
    assert live.data("GET", "/v1/worker").json()["models"] == ["text", "image"]
    text = {"prompt": "a red cube", "seed": "5", **WISHES}
    files = {"prompt_image_file": ("a.png", picture())}
    answers = [
        live.data("POST", "/generate", data=text),
        live.data("POST", "/generate", data={"seed": "5", **WISHES}, files=files),
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        splats = read_ply(answer.content)
        assert len(splats) == 8**3 * 32 == int(answer.headers["SN17-Gaussians"])
        assert np.isfinite(splats.positions).all()
    assert answers[0].content != answers[1].content
    assert live.data("POST", "/generate", data=text).content == answers[0].content
    refused = live.data("POST", "/generate", data={**text, "preset": "slow"})
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_request")


def test_an_empty_structure_leaves_the_worker_usable(
    tmp_path: Path, new_service: Any, wait_until: Any, write_checkpoint: Any
) -> None:
    write_checkpoint(tmp_path / "empty", "Text", occupied=False)
    live = new_service(text_checkpoint=tmp_path / "empty")
    wait_until(lambda: live.data("GET", "/v1/worker").json()["state"] != "warming")
    for _ in range(2):
        answer = live.data("POST", "/generate", data={"prompt": "a red cube", **WISHES})
        assert (answer.status_code, answer.json()["code"]) == (422, "empty_structure")
