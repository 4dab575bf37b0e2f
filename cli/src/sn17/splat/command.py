"""The commands: they read, call the libraries, and show."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from sn17_contract.text import neutralise

from sn17.console import new_console, say
from sn17.exits import Exit, sentence
from sn17.options import Json

if TYPE_CHECKING:
    from sn17_splats import Splats

    from sn17.splat.sniffing import Format as _Format

E = TypeVar("E", bound=StrEnum)

app = typer.Typer(
    name="splat",
    help="Inspect, repair, render, convert and compare gaussian splats. '-' is a pipe.",
    no_args_is_help=True,
)

WRITTEN = "ply, subnet (SPZ for validators), niantic (SPZ for viewers), splat"
READ = f"{WRITTEN}, compressed (PlayCanvas PLY), ksplat, sog"

Source = Annotated[
    str,
    typer.Argument(metavar="FILE", help="a splat, gzipped or not; '-' reads standard input"),
]
From = Annotated[
    str | None, typer.Option("--from", help=f"format of the input, if its bytes do not tell: {READ}")
]
To = Annotated[
    str | None, typer.Option("--to", help=f"format of the output, if its name does not tell: {WRITTEN}")
]
Pixels = Annotated[int, typer.Option(help="pixels of one view's side", min=32, max=2048)]


@app.command()
def inspect(
    file: Source,
    as_json: Json = False,
    render: Annotated[bool, typer.Option(help="also render and tell how opaque the object is drawn")] = False,
    source_format: From = None,
) -> None:
    """Statistics of every column in both spaces, and what a validator would make of the splat."""
    from sn17_fixer.diagnosis import diagnose
    from sn17_fixer.render.check import check_render
    from sn17_splats import statistics

    from sn17.splat.tables import diagnosis_lines, statistics_table

    with _errors():
        splats, kind, size = _read(file, source_format)
        numbers, diagnosis = statistics(splats), diagnose(splats)
        check = check_render(splats) if render else None
    if as_json:
        _print_json(
            {
                "file": file,
                "format": kind,
                "bytes": size,
                "statistics": numbers.as_dict(),
                "diagnosis": dataclasses.asdict(diagnosis),
                "render": None if check is None else dataclasses.asdict(check),
            }
        )
    else:
        from rich.text import Text

        console = new_console()
        console.print(
            Text.assemble(
                (neutralise(file), "bold"),
                f"  {kind}, {size:,} bytes, {size / len(splats):.1f} a gaussian",
            )
        )
        console.print(statistics_table(numbers))
        console.print()
        console.print(diagnosis_lines(diagnosis, check))
    raise typer.Exit({"healthy": 0, "damaged": Exit.DAMAGED}.get(diagnosis.verdict, Exit.UNREPAIRABLE))


@app.command()
def fix(
    file: Source,
    output: Annotated[
        str, typer.Argument(metavar="OUTPUT", help="where to; .spz is the subnet's; '-' is a pipe")
    ],
    policy: Annotated[str, typer.Option(help="measured, phase1 or none")] = "measured",
    place: Annotated[bool, typer.Option(help="centre and scale it for the validator")] = False,
    seed: Annotated[int, typer.Option(help="seed of the noise of phase1", min=0)] = 17,
    as_json: Json = False,
    source_format: From = None,
    to: To = None,
) -> None:
    """Repair a splat and encode it; the report goes to standard error where the asset goes to a pipe."""
    from sn17_fixer.model import PolicyName
    from sn17_fixer.policy import FixOptions
    from sn17_fixer.policy import fix as run
    from sn17_fixer.report import FULL_REPORT, full_report

    from sn17.splat.formats import STDIO, encode, write_bytes
    from sn17.splat.sniffing import Format
    from sn17.splat.tables import steps_table, verdict_text

    chosen = _choice(PolicyName, policy, "--policy")
    subnet = to is None and output.lower().endswith(".spz")
    kind = Format.SUBNET if subnet or (to is None and output == STDIO) else _target(output, to)
    with _errors():
        splats, _, _ = _read(file, source_format)
        fixed = run(splats, FixOptions(policy=chosen, place=place, seed=seed))
        asset, lost = encode(fixed.splats, kind)
        write_bytes(output, asset)
    _say(lost)
    piped = output == STDIO
    if as_json:
        report = FULL_REPORT.dump_python(full_report(fixed, chosen), mode="json")
        _print_json(report, error=piped)
    else:
        console = new_console(error=piped)
        if fixed.steps:
            console.print(steps_table(fixed.steps))
        count = f"{fixed.before.gaussians:,} -> {fixed.after.gaussians:,} gaussians"
        console.print(f"{count}, {len(asset):,} bytes {kind} to {output}")
        console.print(verdict_text(fixed.verdict, fixed.reasons))
    raise typer.Exit(Exit.UNREPAIRABLE if fixed.verdict == "unrepairable" else 0)


@app.command()
def preview(
    file: Source,
    output: Annotated[str, typer.Argument(metavar="PNG", help="where to; '-' is a pipe")],
    size: Pixels = 518,
    source_format: From = None,
) -> None:
    """Two by two views as a PNG, drawn as the validator draws them for its judges."""
    from sn17_fixer.render.preview import preview_png

    from sn17.splat.formats import write_bytes

    with _errors():
        splats, _, _ = _read(file, source_format)
        write_bytes(output, preview_png(splats, size=size))


@app.command()
def convert(
    file: Source,
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="where to; '-' is a pipe (with --to)")],
    source_format: From = None,
    to: To = None,
) -> None:
    """Change the format and nothing else. What is written is read back and compared first.

    All but PLY and the subnet's SPZ need the library gaussforge.
    """
    from sn17.splat.formats import encode, write_bytes

    kind = _target(output, to)
    with _errors():
        splats, source, size = _read(file, source_format)
        asset, lost = encode(splats, kind)
        write_bytes(output, asset)
    _say(lost)
    new_console(error=True).print(
        f"{len(splats):,} gaussians, {source} of {size:,} bytes -> {kind} of {len(asset):,} bytes"
    )


@app.command()
def compare(
    first: Source,
    second: Annotated[str, typer.Argument(metavar="FILE", help="the other one")],
    size: Pixels = 518,
    min_psnr: Annotated[float | None, typer.Option(help="exit with 3 below this many dB")] = None,
    as_json: Json = False,
) -> None:
    """How alike two splats are, in numbers and as the validator draws them."""
    from sn17_fixer.compare import compare as run

    from sn17.splat.tables import comparison_table

    with _errors():
        comparison = run(_read(first, None)[0], _read(second, None)[0], size=size)
    if as_json:
        _print_json({"files": [first, second], **dataclasses.asdict(comparison)})
    else:
        new_console().print(comparison_table(comparison, (first, second)))
    if min_psnr is not None and comparison.psnr < min_psnr:
        raise typer.Exit(Exit.DAMAGED)


@app.command()
def calibrate(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="healthy assets of your generator")],
) -> None:
    """Fit the opacity of your own healthy assets; prints the two settings that the fixer takes."""
    from sn17_fixer.calibrate import calibrate as run

    with _errors():
        reference = run([_read(file, None)[0] for file in files])
    typer.echo(f"SN17_REFERENCE_MEAN={reference.mean:.4f}\nSN17_REFERENCE_STD={reference.std:.4f}")


def _read(file: str, source_format: str | None) -> tuple[Splats, _Format, int]:
    from sn17.splat.formats import decode, read_bytes
    from sn17.splat.sniffing import Format, sniff

    chosen = None if source_format is None else _choice(Format, source_format, "--from")
    data = read_bytes(file)
    kind = chosen or sniff(data, file)
    return decode(data, kind), kind, len(data)


def _say(lost: list[str]) -> None:
    for line in lost:
        say(f"sn17 splat: {line}", error=True)


def _target(output: str, to: str | None) -> _Format:
    from sn17_splats import SplatError

    from sn17.splat.formats import format_for
    from sn17.splat.sniffing import Format

    if to is not None:
        return _choice(Format, to, "--to")
    try:
        return format_for(output)
    except SplatError as error:
        raise typer.BadParameter(str(error)) from error


def _choice(kind: type[E], value: str, option: str) -> E:
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(str(member) for member in kind)
        raise typer.BadParameter(f"{value!r} is none of {known}", param_hint=option) from None


@contextmanager
def _errors() -> Iterator[None]:
    """One sentence on standard error and exit code 1 for what a user can do something about."""
    from sn17.splat.formats import MissingLibraryError

    try:
        yield
    except (OSError, ValueError, MissingLibraryError) as error:
        say(f"sn17 splat: {sentence(error)}", error=True)
        raise typer.Exit(Exit.CANNOT) from error


def _print_json(value: Any, *, error: bool = False) -> None:
    typer.echo(json.dumps(_finite(value), indent=1, default=str), err=error)


def _finite(value: Any) -> Any:
    """JSON has no infinity: null instead."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
