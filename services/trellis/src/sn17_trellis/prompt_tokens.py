"""How much of a prompt the text model reads: tokens behind its length are cut, and that must be told.

Counted beside the model, so that neither torch nor the model process is needed for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ValidationError

from sn17_trellis.engine.config import OWNERS, PipelineConfig
from sn17_trellis.settings import WorkerSettings

log = logging.getLogger("sn17.trellis.prompt")

MODEL_TOKENS: Final = 77
"""Length of CLIP's text model where its configuration names none; start and end token included."""

CountCut = Callable[[str], int | None]
"""Tokens of a prompt that the model does not read; None where nobody can count them."""


class _TextConfig(BaseModel):
    max_position_embeddings: int = MODEL_TOKENS


class _ModelConfig(_TextConfig):
    text_config: _TextConfig | None = None


def uncounted(prompt: str) -> int | None:
    """For backends without such a limit."""
    return None


def count_cut_of(settings: WorkerSettings) -> CountCut:
    """The counter for the worker's text model; without its files ``uncounted``, and a warning."""
    checkpoint = settings.text_checkpoint
    if settings.backend == "torch" and checkpoint is None and settings.image_checkpoint is None:
        checkpoint = Path(str(resources.files("sn17_trellis") / "data" / "mini-text"))
    if settings.backend == "procedural" or checkpoint is None:
        return uncounted
    try:
        directory = _text_model(checkpoint, settings.model_roots)
        return count_cut_in(directory)
    except (ImportError, OSError, ValidationError, ValueError) as error:
        log.warning("tokens that the text model cuts are not counted: %s", error)
        return uncounted


def count_cut_in(directory: Path) -> CountCut:
    """Count with the ``tokenizer.json`` of a text model's directory.

    Raises:
        ImportError: the package ``tokenizers`` is not installed.
        OSError, ValueError: a file is missing or not what it should be.
    """
    from tokenizers import Tokenizer

    config = _ModelConfig.model_validate_json((directory / "config.json").read_bytes())
    limit = (config.text_config or config).max_position_embeddings
    tokenizer = Tokenizer.from_str((directory / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(prompt: str) -> int:
        return max(0, len(tokenizer.encode(prompt).ids) - limit)

    return count


def _text_model(checkpoint: Path, roots: tuple[Path, ...]) -> Path:
    config = PipelineConfig.model_validate_json((checkpoint / "pipeline.json").read_bytes())
    entry = config.conditioner
    owner, _, name = entry.partition("/")
    owners = OWNERS if owner in OWNERS else (owner,)
    near = (checkpoint, checkpoint.parent, checkpoint.parent.parent)
    places = [checkpoint / entry, *(root / each / name for root in (*roots, *near) for each in owners)]
    places += [root / name for root in (*roots, *near)]
    for place in places:
        if (place / "tokenizer.json").is_file():
            return place
    raise FileNotFoundError(f"no tokenizer.json of {entry} beside {checkpoint}")
