"""Prompts and pictures against the `transformers` modules themselves, with random weights."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="the engine needs the 'torch' extra")
transformers = pytest.importorskip("transformers", reason="the engine needs the 'torch' extra")

from sn17_trellis.engine.checkpoint import Repositories, drop_file_pages, read_pipeline  # noqa: E402
from sn17_trellis.engine.conditioning import ImageConditioner, TextConditioner, preprocess  # noqa: E402
from sn17_trellis.engine.errors import CheckpointError, ImageError  # noqa: E402
from sn17_trellis.torch_backend import bundled_checkpoint  # noqa: E402

CPU = torch.device("cpu")
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.fixture
def text(tmp_path: Path, write_checkpoint: Any) -> Path:
    write_checkpoint(tmp_path / "text", "Text")
    return tmp_path / "text"


@pytest.fixture
def image(tmp_path: Path, write_checkpoint: Any) -> Path:
    write_checkpoint(tmp_path / "image", "Image")
    return tmp_path / "image"


def load(kind: Any, checkpoint: Path) -> Any:
    return kind.load(checkpoint, read_pipeline(checkpoint), CPU, Repositories())


def test_text_states_are_those_of_the_padded_prompt_without_a_mask(text: Path) -> None:
    """Eight places, padded with the end token: every one of them is attended to."""
    model = transformers.CLIPTextModel.from_pretrained(text / "condition").eval()
    cond, uncond = load(TextConditioner, text).condition("a red cube")
    a, red, cube, end = 2, 3, 5, 0
    ids = torch.tensor([[a, red, cube, end, end, end, end, end]])
    torch.testing.assert_close(cond, model(input_ids=ids).last_hidden_state)
    torch.testing.assert_close(uncond, model(input_ids=torch.full((1, 8), end)).last_hidden_state)
    assert cond.shape == (1, 8, 32)
    normed = model.text_model.final_layer_norm if hasattr(model, "text_model") else model.final_layer_norm
    plain = model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(cond, normed(plain))


def test_a_long_prompt_is_cut(text: Path) -> None:
    conditioner = load(TextConditioner, text)
    long, cut = conditioner.condition("a red cube " * 9)[0], conditioner.condition("a red cube " * 3)[0]
    torch.testing.assert_close(long, cut)


def test_the_text_model_is_taken_out_of_a_whole_clip(text: Path) -> None:
    """The released repository holds the picture model too, under the same file name."""
    own = transformers.CLIPTextModel.from_pretrained(text / "condition").eval()
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config=own.config.to_dict(),
        vision_config={**small, "image_size": 28, "patch_size": 14},
        projection_dim=16,
    )
    whole = transformers.CLIPModel(config).eval()
    whole.save_pretrained(text / "condition")
    ids = torch.tensor([[2, 3, 5, 0, 0, 0, 0, 0]])
    expected = whole.text_model(input_ids=ids).last_hidden_state
    torch.testing.assert_close(load(TextConditioner, text).condition("a red cube")[0], expected)


def test_a_text_model_without_all_weights_is_refused(text: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = text / "condition" / "model.safetensors"
    weights = load_file(file)
    gone = next(key for key in weights if "fc1.weight" in key)
    save_file({key: value for key, value in weights.items() if key != gone}, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"fc1\.weight"):
        load(TextConditioner, text)


def test_image_states_come_before_the_last_norm(image: Path) -> None:
    model = transformers.Dinov2WithRegistersModel.from_pretrained(image / "condition").eval()
    torch.nn.init.normal_(model.layernorm.weight)
    pixels = picture((100, 100), (20, 30, 60, 90))
    cond, uncond = load(ImageConditioner, image).condition(pixels)
    x = torch.from_numpy(preprocess(pixels))[None]
    before = model(pixel_values=x, output_hidden_states=True).hidden_states[-1]
    centred = before - before.mean(-1, keepdim=True)
    expected = centred / torch.sqrt(before.var(-1, keepdim=True, correction=0) + 1e-5)
    torch.testing.assert_close(cond, expected)
    assert cond.shape == (1, 1 + 4 + 37 * 37, 32)
    assert not uncond.any()
    assert uncond.shape == cond.shape


def picture(size: tuple[int, int], box: tuple[int, int, int, int], alpha: int = 255) -> Any:
    """A ramp of colours inside left, top, right, bottom (each included), and white that does not count."""
    width, height = size
    out = np.full((height, width, 4), (255, 255, 255, 0), np.uint8)
    left, top, right, bottom = box
    y, x = np.mgrid[top : bottom + 1, left : right + 1]
    out[top : bottom + 1, left : right + 1] = np.stack(
        [x * 255 // width, y * 255 // height, np.full_like(x, 40), np.full_like(x, alpha)], axis=-1
    )
    return out


def test_the_object_is_cut_out_with_a_margin_on_black() -> None:
    """40 x 60 pixels: a square of 1.2 x 59 about its centre, also where that leaves the picture."""
    box = (20, 30, 59, 89)
    got = preprocess(picture((100, 100), box))
    side = int(59 * 1.2) // 2
    centre = (np.array(box[:2]) + box[2:]) / 2
    corners = (*np.rint(centre - side).astype(int), *np.rint(centre + side).astype(int))
    square = Image.fromarray(picture((100, 100), box), "RGBA").crop(corners)
    assert square.size == (70, 70)
    scaled = np.asarray(square.resize((518, 518), Image.Resampling.LANCZOS)).astype(np.float64) / 255
    flat = np.floor(scaled[..., :3] * scaled[..., 3:] * 255) / 255
    np.testing.assert_allclose(got.transpose(1, 2, 0), (flat - MEAN) / STD, atol=1.1 / 255 / STD.min())
    assert got.dtype == np.float32
    black = -MEAN / STD
    np.testing.assert_allclose(got[:, 2, 2], black, atol=1e-5)


def test_half_transparent_pixels_darken_but_do_not_widen_the_cut() -> None:
    pixels = picture((100, 100), (40, 40, 59, 59))
    pixels[0, 0] = (255, 255, 255, 100)
    np.testing.assert_array_equal(preprocess(pixels), preprocess(picture((100, 100), (40, 40, 59, 59))))
    light, faint = (preprocess(picture((64, 64), (16, 16, 47, 47), alpha)) for alpha in (255, 210))
    assert faint.mean() < light.mean()


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (picture((64, 64), (10, 10, 50, 50), alpha=100), "no object"),
        (picture((64, 64), (10, 10, 10, 10)), "single pixel"),
        (np.full((64, 64, 4), 255, np.uint8), "background"),
        (np.zeros((64, 64, 3), np.uint8), "RGBA"),
        (np.zeros((64, 64, 4), np.float32), "RGBA"),
    ],
)
def test_pictures_that_show_nothing(pixels: Any, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        preprocess(pixels)


def test_an_opaque_picture_goes_through_the_remover() -> None:
    opaque = picture((64, 64), (16, 16, 47, 47))
    opaque[..., 3] = 255
    seen: list[Any] = []

    def remove(pixels: Any) -> Any:
        seen.append(pixels)
        return picture((64, 64), (16, 16, 47, 47))

    np.testing.assert_array_equal(preprocess(opaque, remove), preprocess(picture((64, 64), (16, 16, 47, 47))))
    assert len(seen) == 1
    transparent = picture((64, 64), (16, 16, 47, 47))
    preprocess(transparent, remove)
    assert len(seen) == 1


def pages_in_memory(file: Path) -> int:
    """Pages of a file that the kernel keeps, in whichever process."""
    libc = ctypes.CDLL(None, use_errno=True)
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapped:
        pages = -(-len(mapped) // mmap.PAGESIZE)
        there = (ctypes.c_ubyte * pages)()
        start = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        assert libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(len(mapped)), there) == 0
        return sum(page & 1 for page in there)


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="only Linux tells which pages it keeps")
def test_nothing_of_the_text_models_file_stays_in_the_page_cache(tmp_path: Path) -> None:
    for part in ("pipeline.json", "text"):
        source = bundled_checkpoint() / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / part)
    weights = tmp_path / "text" / "model.safetensors"
    with weights.open("rb") as file:
        os.fsync(file.fileno())
    drop_file_pages(weights)
    if pages_in_memory(weights):
        pytest.skip("this file system keeps its files in memory")
    load(TextConditioner, tmp_path)
    assert pages_in_memory(weights) == 0
