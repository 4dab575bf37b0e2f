"""Prompts and images into what the flows attend to, by `transformers` models read from local directories."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as fn
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sn17_trellis.engine.checkpoint import Repositories, drop_file_pages
from sn17_trellis.engine.config import PipelineConfig
from sn17_trellis.engine.errors import CheckpointError, CheckpointMissingError, ImageError

IMAGE_SIZE = 518
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)

RgbaImage = NDArray[np.uint8]


class BackgroundRemover(Protocol):
    """Gives an image without transparency an alpha channel that shows the object only."""

    def __call__(self, image: RgbaImage) -> RgbaImage:
        """[h, w, 4] uint8 to the same shape."""
        ...


def model_directory(checkpoint: Path, entry: str, repositories: Repositories) -> Path:
    """Local directory of a conditioning model: inside the checkpoint, or a repository beside it."""
    near = Repositories((checkpoint, checkpoint.parent, checkpoint.parent.parent))
    places = [checkpoint / entry, *repositories.find(entry), *near.find(entry)]
    for place in places:
        if (place / "config.json").is_file():
            return place
    tried = ", ".join(dict.fromkeys(str(place) for place in places))
    raise CheckpointMissingError(
        f"{checkpoint / 'pipeline.json'}: no files of {entry!r} on this machine; tried {tried}"
    )


def conditioner_directory(checkpoint: Path, config: PipelineConfig, repositories: Repositories) -> Path:
    """Where its files lie. Raises CheckpointMissingError."""
    return model_directory(checkpoint, config.conditioner, repositories)


def _pretrained(model_class: Any, directory: Path, device: torch.device) -> Any:
    """A `transformers` model from a local directory, refused when a weight is missing or misshapen."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call, unused-ignore]
    try:
        model, info = model_class.from_pretrained(
            directory, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{directory}: {error}") from error
    absent = [*info["missing_keys"], *info["mismatched_keys"]]
    if absent:
        raise CheckpointError(
            f"{directory}: {len(absent)} weight(s) missing or misshapen, first: {absent[0]}"
        )
    model = model.to(device=device, dtype=torch.float32).eval().requires_grad_(False)
    # Only now: until it is moved or converted the model is the mapped file.
    for weights in directory.glob("*.safetensors"):
        drop_file_pages(weights)
    return model


class TextConditioner:
    """CLIP text model: the last hidden state after its final norm, [1, tokens, width] float32.

    No attention mask is given: padding is attended to as in training. The state of the empty prompt is
    computed once.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._null: Tensor | None = None

    @classmethod
    def load(
        cls, checkpoint: Path, config: PipelineConfig, device: torch.device, repositories: Repositories
    ) -> TextConditioner:
        """Read the text model that `pipeline.json` names, or the default where it names none."""
        from transformers import AutoTokenizer, CLIPTextModel

        directory = conditioner_directory(checkpoint, config, repositories)
        try:
            tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{directory}: {error}") from error
        return cls(_pretrained(CLIPTextModel, directory, device), tokenizer)

    def encode(self, prompt: str) -> Tensor:
        """Hidden states of one prompt, cut at the model's length."""
        tokens = self._tokenizer(
            [prompt],
            max_length=self._model.config.max_position_embeddings,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        )
        states: Tensor = self._model(input_ids=tokens["input_ids"].to(self._model.device)).last_hidden_state
        return states

    def condition(self, prompt: str) -> tuple[Tensor, Tensor]:
        """The condition and its absence."""
        if self._null is None:
            self._null = self.encode("")
        return self.encode(prompt), self._null

    def example(self) -> tuple[Tensor, Tensor]:
        """Some condition."""
        return self.condition("a red cube")


class ImageConditioner:
    """DINOv2 with registers: states before the final norm, layer-normed, [1, tokens, width] float32."""

    def __init__(self, model: Any, remove_background: BackgroundRemover | None = None) -> None:
        self._model = model
        # The flows were trained on states before the model's own last norm.
        self._model.layernorm = torch.nn.Identity()
        self._remove_background = remove_background

    @classmethod
    def load(
        cls,
        checkpoint: Path,
        config: PipelineConfig,
        device: torch.device,
        repositories: Repositories,
        remove_background: BackgroundRemover | None = None,
    ) -> ImageConditioner:
        """Read the image model that `pipeline.json` names."""
        from transformers import Dinov2WithRegistersModel

        directory = conditioner_directory(checkpoint, config, repositories)
        return cls(_pretrained(Dinov2WithRegistersModel, directory, device), remove_background)

    def condition(self, image: RgbaImage) -> tuple[Tensor, Tensor]:
        """The condition and its absence (zeros)."""
        return self._states(preprocess(image, self._remove_background))

    def example(self) -> tuple[Tensor, Tensor]:
        """Some condition."""
        return self._states(np.zeros((3, IMAGE_SIZE, IMAGE_SIZE), np.float32))

    def _states(self, pixels: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
        device = next(self._model.parameters()).device
        x = torch.from_numpy(pixels).to(device)[None]
        states = self._model(pixel_values=x).last_hidden_state
        cond = fn.layer_norm(states, states.shape[-1:])
        return cond, torch.zeros_like(cond)


def preprocess(image: RgbaImage, remove_background: BackgroundRemover | None = None) -> NDArray[np.float32]:
    """Crop to the object with a margin, put it on black, resize: [h, w, 4] uint8 to [3, 518, 518] normalised.

    An image whose alpha is 255 throughout needs `remove_background`. Raises ImageError for an image that
    shows no object, or that has a background nobody can remove.
    """
    if image.ndim != 3 or image.shape[2] != 4 or image.dtype != np.uint8:
        raise ImageError(f"an RGBA image of 8 bits is needed, got shape {image.shape} of {image.dtype}")
    if (image[:, :, 3] == 255).all():
        if remove_background is None:
            raise ImageError(
                "the image has no transparent background: send a PNG with an alpha channel, or install the "
                "'background' extra of sn17-trellis on the worker"
            )
        image = remove_background(image)
    rows, columns = np.nonzero(image[:, :, 3] > 0.8 * 255)
    if not len(rows):
        raise ImageError("the image shows no object: its alpha is nowhere above 80 %")
    left, right, top, bottom = columns.min(), columns.max(), rows.min(), rows.max()
    half = int(max(right - left, bottom - top) * 1.2) // 2
    if half < 1:
        raise ImageError("the object in the image is a single pixel")
    x, y = (left + right) / 2, (top + bottom) / 2
    crop = Image.fromarray(image, "RGBA").crop(
        (round(x - half), round(y - half), round(x + half), round(y + half))
    )
    resized = (
        np.asarray(crop.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.LANCZOS), dtype=np.float32) / 255
    )
    flat = (resized[:, :, :3] * resized[:, :, 3:] * 255).astype(np.uint8)
    normal = (flat.astype(np.float32) / 255 - _MEAN) / _STD
    return np.ascontiguousarray(normal.transpose(2, 0, 1))
