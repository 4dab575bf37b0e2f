"""``python -m sn17_dashboards``: write the chart's dashboards, check them, or draw them from a Prometheus."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sn17_dashboards.boards import BOARDS
from sn17_dashboards.grafana import to_json

ROOT = Path(__file__).resolve().parents[5]
FOLDER = ROOT / "charts" / "sn17" / "dashboards"
PICTURES = ROOT / "docs" / "dashboards"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sn17_dashboards", description=(__doc__ or "").strip())
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("write", help=f"write {FOLDER.relative_to(ROOT)}/*.json")
    commands.add_parser("check", help="exit 1 unless the files are current")
    draw = commands.add_parser("draw", help=f"draw every panel into {PICTURES.relative_to(ROOT)}/*.png")
    draw.add_argument("--prometheus", required=True, help="base URL")
    draw.add_argument("--minutes", type=float, default=60, help="how far back (default: %(default)s)")
    draw.add_argument("--into", type=Path, default=PICTURES)
    arguments = parser.parse_args(argv)
    if arguments.command == "draw":
        from sn17_dashboards.draw import draw_boards

        return draw_boards(FOLDER, arguments.prometheus, arguments.minutes * 60, arguments.into)
    return _files(write=arguments.command == "write")


def _files(*, write: bool) -> int:
    wanted = {FOLDER / f"{board.name}.json": to_json(board) for board in BOARDS}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    stale += [path for path in FOLDER.glob("*.json") if path not in wanted]
    for path in stale:
        if write and path in wanted:
            path.write_text(wanted[path])
        elif write:
            path.unlink()
        sys.stdout.write(f"{'written' if write else 'not current'}: {path.name}\n")
    return 1 if stale and not write else 0


if __name__ == "__main__":
    sys.exit(main())
