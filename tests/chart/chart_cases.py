"""What several test files of the chart share."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "sn17"

PRELOADED = ("--set", "image.preloaded=true")
"""Images that the nodes have, so that no registry must be named."""


REVISION = "0123456789abcdef0123456789abcdef01234567"
COMMITS = (
    "--set",
    ",".join(f"trellis.model.{part}revision={REVISION}" for part in ("", "decoders.", "textEncoder.")),
)
"""The commits that fetching a model takes."""


class ChartError(Exception):
    """Helm refused the values; the message is what it said."""
