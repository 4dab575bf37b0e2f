"""PLY in the INRIA convention: a header parsed by hand, a body read as one view of the bytes."""

from __future__ import annotations

import io
import itertools
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sn17_splats.container import SH_DEGREE_BY_REST, Float32, Limits, SplatError, Splats

Buffer = bytes | bytearray | memoryview

_MAX_HEADER: Final = 64 * 1024
_MAX_PROPERTIES: Final = 512
_TYPES: Final = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1",
    "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS: Final = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}
_GROUPS: Final = {
    "positions": ("x", "y", "z"),
    "log_scales": ("scale_0", "scale_1", "scale_2"),
    "rotations": ("rot_0", "rot_1", "rot_2", "rot_3"),
    "opacity_logits": ("opacity",),
    "f_dc": ("f_dc_0", "f_dc_1", "f_dc_2"),
}


@dataclass(frozen=True, slots=True)
class PlyHeader:
    """What the header says: the byte order (empty for ascii) and the layout of the vertex element.

    ``properties`` are (name, numpy type without byte order); ``vertex_offset`` is where the first vertex
    lies in the file (for ascii: where the body begins); ``comments`` are kept as written.
    """

    order: str
    count: int
    properties: tuple[tuple[str, str], ...]
    vertex_offset: int
    comments: tuple[str, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one vertex in a binary file."""
        return sum(int(kind[1]) for _, kind in self.properties)


def column_names(rest: int = 0, *, normals: bool) -> tuple[str, ...]:
    """The property names in the order of the reference implementation, with ``rest`` f_rest columns."""
    return (
        "x", "y", "z", *(("nx", "ny", "nz") if normals else ()), "f_dc_0", "f_dc_1", "f_dc_2",
        *(f"f_rest_{i}" for i in range(rest)), "opacity", "scale_0", "scale_1", "scale_2",
        "rot_0", "rot_1", "rot_2", "rot_3",
    )  # fmt: skip


def header_bytes(count: int, rest: int = 0, *, normals: bool) -> bytes:
    """The one header that the subnet's strict parser is known to take, for ``count`` gaussians."""
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {count}",
        *(f"property float {name}" for name in column_names(rest, normals=normals)),
        "end_header\n",
    ]
    return "\n".join(lines).encode()


def is_canonical(data: Buffer) -> bool:
    """Whether ``data`` is byte for byte in the layout of :func:`write_ply`, normals aside."""
    header = read_header(data)
    names = [name for name, _ in header.properties]
    rest = sum(name.startswith("f_rest_") for name in names)
    expected = header_bytes(header.count, rest, normals="nx" in names)
    view = memoryview(data)
    size = len(expected) + header.count * 4 * len(names)
    return view.nbytes == size and bytes(view[: len(expected)]) == expected


def read_header(data: Buffer) -> PlyHeader:
    """Parse a PLY header. Raises :class:`SplatError`; never looks further than 64 KiB."""
    head = bytes(memoryview(data)[:_MAX_HEADER])
    if not head.startswith((b"ply\n", b"ply\r\n")):
        raise SplatError("not a PLY: the first line is not 'ply'")
    body = -1
    lines: list[str] = []
    start = 0
    while body < 0:
        end = head.find(b"\n", start)
        if end < 0:
            raise SplatError(f"the PLY header has no 'end_header' line in its first {len(head)} bytes")
        line = head[start:end].rstrip(b"\r")
        start = end + 1
        if line.strip() == b"end_header":
            body = start
        lines.append(line.decode("utf-8", "replace"))
    return _parse_lines(lines[1:-1], body)


def _parse_lines(lines: list[str], body: int) -> PlyHeader:
    order: str | None = None
    elements: list[tuple[str, int, list[tuple[str, str]]]] = []
    comments: list[str] = []
    for number, line in enumerate(lines, start=2):
        words = line.split()
        match words:
            case [] | ["end_header"]:
                continue
            case ["comment" | "obj_info", *_]:
                comments.append(line)
            case ["format", name, "1.0"] if name in _ORDERS:
                order = _ORDERS[name]
            case ["element", name, digits] if digits.isascii() and digits.isdigit() and len(digits) <= 15:
                elements.append((name, int(digits), []))
            case ["property", "list", *_] if elements:
                elements[-1][2].append(("", "list"))
            case ["property", kind, name] if elements and kind in _TYPES:
                elements[-1][2].append((name, _TYPES[kind]))
            case _:
                raise SplatError(f"PLY header line {number} is not understood: {line[:80]!r}")
        if elements and len(elements[-1][2]) > _MAX_PROPERTIES:
            raise SplatError(f"PLY element {elements[-1][0]!r} has more than {_MAX_PROPERTIES} properties")
    if order is None:
        raise SplatError("the PLY header has no 'format' line")
    offset = body
    for name, count, properties in elements:
        has_list = any(kind == "list" for _, kind in properties)
        if name == "vertex":
            if has_list:
                raise SplatError("the PLY vertex element has a list property; a splat has scalars only")
            names = [name for name, _ in properties]
            if len(set(names)) != len(names):
                raise SplatError("the PLY vertex element names a property twice")
            return PlyHeader(order, count, tuple(properties), offset, tuple(comments))
        if has_list or not order:
            raise SplatError(
                f"PLY element {name!r} before 'vertex' is not supported here: put 'vertex' first"
            )
        offset += count * sum(int(kind[1]) for _, kind in properties)
    raise SplatError("the PLY has no 'vertex' element")


def read_ply(data: Buffer, limits: Limits = Limits()) -> Splats:
    """Read a splat from the bytes of a PLY file.

    Binary files become views of ``data`` without a copy wherever the columns of a group are float32 side
    by side; big-endian and other types and text are converted by numpy. Comments, normals, extra
    properties and what follows the vertices are ignored.

    Raises :class:`SplatError` for anything else and :class:`SplatTooLarge` over ``limits``, before memory
    is taken for what a header merely claims.
    """
    size = memoryview(data).nbytes
    limits.check_bytes(size, "a PLY")
    header = read_header(data)
    limits.check_gaussians(header.count)
    names = [name for name, _ in header.properties]
    missing = [name for group in _GROUPS.values() for name in group if name not in names]
    if missing:
        raise SplatError(f"the PLY lacks the vertex properties {', '.join(missing)}")
    rest = [f"f_rest_{i}" for i in range(sum(name.startswith("f_rest_") for name in names))]
    if len(rest) not in SH_DEGREE_BY_REST or any(name not in names for name in rest):
        raise SplatError(
            f"the PLY has {len(rest)} f_rest properties; expected f_rest_0 to 8, 23 or 44, or none"
        )
    table = _read_binary(data, header) if header.order else _read_ascii(data, header)
    groups = {field: _columns(table, group) for field, group in _GROUPS.items()}
    groups["opacity_logits"] = groups["opacity_logits"][:, 0]
    return Splats(**groups, f_rest=_columns(table, tuple(rest)) if rest else None)


def _read_binary(data: Buffer, header: PlyHeader) -> NDArray[Any]:
    need = header.count * header.row_bytes
    have = memoryview(data).nbytes - header.vertex_offset
    if have < need:
        raise SplatError(
            f"the PLY is cut short: {header.count} vertices of {header.row_bytes} bytes need {need} bytes, "
            f"{max(have, 0)} are there"
        )
    kinds = [(name, header.order + kind) for name, kind in header.properties]
    return np.frombuffer(data, dtype=np.dtype(kinds), count=header.count, offset=header.vertex_offset)


def _read_ascii(data: Buffer, header: PlyHeader) -> NDArray[Any]:
    # Each number takes at least a digit and a separator: a claim beyond that is refused unread.
    have = memoryview(data).nbytes - header.vertex_offset
    if have + 1 < 2 * header.count * len(header.properties):
        raise SplatError(f"the ascii PLY is cut short: {header.count} vertices do not fit in {have} bytes")
    lines = filter(bytes.strip, io.BytesIO(memoryview(data)[header.vertex_offset :]))
    rows = itertools.islice(lines, header.count)
    first = next(rows, None)
    if first is None:
        raise SplatError("the ascii PLY is cut short: no vertex is there")
    try:
        values = np.loadtxt(itertools.chain([first], rows), comments=None, ndmin=2)
    except ValueError as error:
        raise SplatError(f"the ascii PLY is not readable: {error}") from error
    if values.shape != (header.count, len(header.properties)):
        raise SplatError(
            f"the ascii PLY is cut short or not readable: {header.count} vertices of "
            f"{len(header.properties)} numbers should be there, {values.shape[0]} of {values.shape[1]} are"
        )
    return values.view([(name, values.dtype) for name, _ in header.properties])[:, 0]


def _columns(table: NDArray[Any], names: tuple[str, ...]) -> Float32:
    """The named columns as (n, len(names)) float32: a view where they lie side by side, else a copy."""
    fields = table.dtype.fields
    assert fields is not None
    kinds = [fields[name][0] for name in names]
    offsets = [fields[name][1] for name in names]
    if all(kind == np.dtype("<f4") for kind in kinds) and all(
        offset == offsets[0] + 4 * i for i, offset in enumerate(offsets)
    ):
        # A sub-array field: (n, k) with the row's stride, no copy, whatever lies around the columns.
        group = np.dtype(
            {
                "names": ["g"],
                "formats": [("<f4", (len(names),))],
                "offsets": [offsets[0]],
                "itemsize": table.dtype.itemsize,
            }
        )
        view: Float32 = table.view(group)["g"]
        return view
    out = np.empty((len(table), len(names)), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for i, name in enumerate(names):
            out[:, i] = table[name]
    return out


_ROWS_AT_ONCE: Final = 4096
_NORMALS: Final = 1
"""Which group of columns is the normals, which a splat has none of."""


def write_ply(splats: Splats, *, normals: bool = True) -> bytes:
    """The splat as a canonical PLY: float32 little-endian, no comments, 17 properties (14 without normals).

    Normals are written as zeros; ``f_rest`` follows ``f_dc``. Raises :class:`SplatError` for no gaussians,
    which no reader of the format takes.
    """
    if len(splats) < 1:
        raise SplatError("a splat without gaussians can't be written")
    rest = 0 if splats.f_rest is None else splats.f_rest.shape[1]
    head = header_bytes(len(splats), rest, normals=normals)
    columns = [
        splats.positions,
        np.zeros((len(splats), 3 if normals else 0), np.float32),
        splats.f_dc,
        *(() if splats.f_rest is None else (splats.f_rest,)),
        splats.opacity_logits[:, None],
        splats.log_scales,
        splats.rotations,
    ]
    rows = _rows_of(columns)
    if rows is not None:
        return b"".join([head, rows.data.cast("B")])
    # Piece by piece through a table that stays in the processor's cache, into memory that becomes the result.
    out = io.BytesIO(head)
    out.seek(len(head))
    table = np.empty((_ROWS_AT_ONCE, sum(column.shape[1] for column in columns)), "<f4")
    for start in range(0, len(splats), _ROWS_AT_ONCE):
        part = table[: len(splats) - start]
        np.concatenate([column[start : start + len(part)] for column in columns], axis=1, out=part)
        out.write(part.data)
    return out.getvalue()


def _rows_of(columns: list[Float32]) -> NDArray[Any] | None:
    """The table [N, C] whose columns these are, where there is one; the normals are its own.

    An engine that packs its gaussians as a PLY's rows needs no second table then.
    """
    first, ends = columns[0], np.cumsum([column.shape[1] for column in columns]).tolist()
    table = first.base
    if not isinstance(table, np.ndarray) or table.shape != (len(first), ends[-1]):
        return None
    if table.dtype != np.dtype("<f4") or not table.flags.c_contiguous:
        return None
    for number, (column, end) in enumerate(zip(columns, ends, strict=True)):
        place = table[:, end - column.shape[1] : end]
        if number == _NORMALS:
            if place.any():
                return None
        elif (
            column.ctypes.data != place.ctypes.data
            or column.strides[0] != table.strides[0]
            or (column.shape[1] > 1 and column.strides[1] != table.strides[1])
        ):
            return None
    return table
