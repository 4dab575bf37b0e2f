from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from conftest_splats import FIELDS, make_splats
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from plyfile import PlyData
from sn17_splats import Limits, SplatError, Splats, SplatTooLarge, is_canonical, read_ply, write_ply


def header_and_body(data: bytes) -> tuple[bytes, bytes]:
    head, mark, body = data.partition(b"end_header\n")
    return head + mark, body


def assert_same(left: Splats, right: Splats) -> None:
    for name in FIELDS:
        a, b = getattr(left, name), getattr(right, name)
        assert (a is None) == (b is None), name
        if a is not None:
            np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("normals", [True, False])
def test_what_is_written_reads_back_bit_for_bit(degree: int, normals: bool) -> None:
    splats = make_splats(degree=degree)
    splats.opacity_logits[:3] = np.inf, -np.inf, np.nan
    data = write_ply(splats, normals=normals)
    assert_same(read_ply(data), splats)
    assert is_canonical(data)
    assert not is_canonical(data + b"more")


@pytest.mark.parametrize("count", [1, 4096, 8195])
def test_pieces_are_put_together_in_order(count: int) -> None:
    splats = make_splats(count)
    groups = [splats.positions, np.zeros((count, 3)), splats.f_dc, splats.opacity_logits[:, None]]
    table = np.concatenate([*groups, splats.log_scales, splats.rotations], axis=1).astype("<f4")
    assert header_and_body(write_ply(splats))[1] == table.tobytes()


@pytest.mark.parametrize("normals", [True, False])
@pytest.mark.parametrize(
    ("spoil", "order"),
    [
        pytest.param(None, [0, 10, 13, 9, 6], id="the rows of a PLY"),
        pytest.param("normals", [0, 10, 13, 9, 6], id="with something in the normals' columns"),
        pytest.param("rows", [0, 10, 13, 9, 6], id="every second row"),
        pytest.param("big", [0, 10, 13, 9, 6], id="of the other byte order"),
        pytest.param(None, [6, 10, 13, 9, 0], id="colours and positions exchanged"),
        pytest.param(None, [0, 9, 13, 12, 6], id="columns moved by one"),
    ],
)
def test_columns_of_one_table_are_written_as_any_others(
    spoil: str | None, order: list[int], normals: bool
) -> None:
    table = np.random.default_rng(3).normal(size=(9, 17)).astype("<f4")
    table[:, 3:6] = 0.5 if spoil == "normals" else 0
    table = {"rows": table[::2], "big": table.astype(">f4")}.get(spoil or "", table)
    widths = (3, 3, 4, None, 3)
    views = [
        table[:, start] if width is None else table[:, start : start + width]
        for start, width in zip(order, widths, strict=True)
    ]
    apart = [np.array(view, np.float32) for view in views]
    assert write_ply(Splats(*views), normals=normals) == write_ply(Splats(*apart), normals=normals)


def test_columns_that_only_begin_where_those_of_a_table_do_are_not_taken_for_them() -> None:
    """Other rows than the table's, and halves of the doubles of a table."""
    table = np.random.default_rng(3).normal(size=(9, 17)).astype("<f4")
    table[:, 3:6] = 0
    doubles = table.astype("<f8")
    halves = doubles.view("<f4")[:, ::2]
    for opacity, rows in ((table.reshape(-1)[9:18], table), (halves[:, 9], halves)):
        views = rows[:, :3], rows[:, 10:13], rows[:, 13:17], opacity, rows[:, 6:9]
        apart = [np.array(view, np.float32) for view in views]
        assert write_ply(Splats(*views)) == write_ply(Splats(*apart))


def test_layout_is_what_the_strict_parser_of_the_subnet_takes() -> None:
    head, body = header_and_body(write_ply(make_splats(7)))
    lines = head.decode().splitlines()
    assert lines[:3] == ["ply", "format binary_little_endian 1.0", "element vertex 7"]
    names = "x y z nx ny nz f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3"
    assert lines[3:-1] == [f"property float {name}" for name in names.split()]
    assert len(body) == 7 * 17 * 4
    assert not np.frombuffer(body, "<f4").reshape(7, 17)[:, 3:6].any()


def test_reading_takes_views_of_the_bytes() -> None:
    data = write_ply(make_splats())
    splats = read_ply(data)
    whole = np.frombuffer(data, np.uint8)
    for name in FIELDS[:-1]:
        assert np.shares_memory(getattr(splats, name), whole), name


def test_other_writers_read_back(tmp_path) -> None:
    """meshio and plyfile read our files, and we read theirs, comments, doubles and text included."""
    import meshio

    splats = make_splats(300)
    path = tmp_path / "ours.ply"
    path.write_bytes(write_ply(splats))
    mesh = meshio.read(path)
    np.testing.assert_array_equal(mesh.points.astype(np.float32), splats.positions)
    np.testing.assert_array_equal(mesh.point_data["opacity"], splats.opacity_logits)
    theirs = tmp_path / "meshio.ply"
    meshio.write(theirs, mesh, binary=True)
    assert b"comment" in theirs.read_bytes()[:200]
    assert_same(read_ply(theirs.read_bytes()), splats)

    ply = PlyData.read(path)
    for settings in ({"byte_order": ">"}, {"text": True}):
        out = io.BytesIO()
        PlyData(ply.elements, comments=["odd"], **settings).write(out)
        back = read_ply(out.getvalue())
        for name in FIELDS[:-1]:
            np.testing.assert_allclose(getattr(back, name), getattr(splats, name), rtol=1e-6)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("normals", [True, False])
def test_plyfile_reads_what_we_write(degree: int, normals: bool) -> None:
    """Another implementation of the format sees the same bits under the same names."""
    splats = make_splats(40, degree=degree)
    splats.opacity_logits[:3] = np.inf, -np.inf, np.nan
    vertex = PlyData.read(io.BytesIO(write_ply(splats, normals=normals)))["vertex"]
    assert_same(from_plyfile(vertex), splats)
    assert ("nx" in vertex) == normals


FLOATS = st.floats(width=32) | st.sampled_from([np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.4e38])


@given(arrays(np.float32, st.tuples(st.integers(1, 12), st.just(14)), elements=FLOATS))
@examples(max_examples=60, deadline=None)
def test_text_reads_as_plyfile_reads_it(values: np.ndarray) -> None:
    columns = (values[:, :3], values[:, 3:6], values[:, 6:10], values[:, 10], values[:, 11:])
    binary = PlyData.read(io.BytesIO(write_ply(Splats(*columns))))
    out = io.BytesIO()
    PlyData(binary.elements, text=True).write(out)
    theirs = from_plyfile(PlyData.read(io.BytesIO(out.getvalue()))["vertex"])
    assert_same(read_ply(out.getvalue()), theirs)


def from_plyfile(vertex: Any) -> Splats:
    """A splat from the columns of a vertex element, whatever their order in the file."""

    def group(*names: str) -> np.ndarray:
        return np.stack([vertex[name] for name in names], axis=1)

    rest = sorted((p.name for p in vertex.properties if p.name.startswith("f_rest_")), key=len)
    return Splats(
        positions=group("x", "y", "z"),
        log_scales=group("scale_0", "scale_1", "scale_2"),
        rotations=group("rot_0", "rot_1", "rot_2", "rot_3"),
        opacity_logits=vertex["opacity"],
        f_dc=group("f_dc_0", "f_dc_1", "f_dc_2"),
        f_rest=group(*rest) if rest else None,
    )


TEXT_HEAD = b"""ply
format ascii 1.0
element vertex 2
property uchar red
property float x
property float y
property float z
property float opacity
property double scale_0
property float scale_1
property float scale_2
property float rot_0
property float rot_1
property float rot_2
property float rot_3
property float f_dc_0
property float f_dc_1
property float f_dc_2
element face 1
property list uchar int vertex_index
end_header
"""
TEXT_ROW = b"255 " + b" ".join(b"%d.5" % i for i in range(14)) + b"\n"


def test_text_with_other_elements_and_blank_lines_is_read() -> None:
    splats = read_ply(TEXT_HEAD + TEXT_ROW + b"\n" + TEXT_ROW + b"3 0 1 2\n")
    assert len(splats) == 2
    assert splats.positions[1].tolist() == [0.5, 1.5, 2.5]
    assert splats.log_scales[1].tolist() == [4.5, 5.5, 6.5]


@pytest.mark.parametrize(
    "body",
    [
        TEXT_ROW,  # one of two
        TEXT_ROW + TEXT_ROW[:-6],  # a column short
        TEXT_ROW + TEXT_ROW.replace(b"3.5", b"three"),
        TEXT_ROW + b"\xff" * 200,
        TEXT_ROW + b"1" * 100_000,  # one endless number
        TEXT_ROW + b"1 " * 100_000 + b"x",  # one endless line
        TEXT_ROW + b"\x00" * 200,
    ],
)
def test_text_that_is_no_table_is_refused(body: bytes) -> None:
    with pytest.raises(SplatError, match=r"ascii PLY is (cut short|not readable)"):
        read_ply(TEXT_HEAD + body)


def test_gsply_reads_what_we_write(tmp_path) -> None:
    gsply = pytest.importorskip("gsply")
    splats = make_splats(300)
    path = tmp_path / "ours.ply"
    path.write_bytes(write_ply(splats, normals=False))
    np.testing.assert_array_equal(gsply.plyread(str(path)).means, splats.positions)


def test_extra_properties_and_mixed_types_are_read() -> None:
    splats = make_splats(50, degree=1)
    names = [("red", "u1"), *((f"rot_{i}", "f8") for i in (3, 2, 1, 0)), *((axis, "f4") for axis in "xyz")]
    names += [("confidence", "f4"), ("opacity", "f8"), *((f"f_dc_{i}", "f4") for i in range(3))]
    names += [*((f"scale_{i}", "f4") for i in range(3)), *((f"f_rest_{i}", "f4") for i in range(9))]
    table = np.zeros(50, np.dtype([(name, "<" + kind) for name, kind in names]))
    for axis, name in enumerate("xyz"):
        table[name] = splats.positions[:, axis]
    for field, prefix in (
        ("rotations", "rot_"),
        ("f_dc", "f_dc_"),
        ("log_scales", "scale_"),
        ("f_rest", "f_rest_"),
    ):
        array = getattr(splats, field)
        for i in range(array.shape[1]):
            table[f"{prefix}{i}"] = array[:, i]
    table["opacity"] = splats.opacity_logits
    words = {"u1": "uchar", "f4": "float", "f8": "double"}
    lines = [
        "ply", "comment made by hand", "format binary_little_endian 1.0", "obj_info x", "element camera 3",
        "property float fov", "element vertex 50",
        *(f"property {words[kind]} {name}" for name, kind in names),
        "element face 1", "property list uchar int vertex_index", "end_header\r\n",
    ]  # fmt: skip
    data = "\r\n".join(lines).encode() + bytes(12) + table.tobytes() + b"\x03" + bytes(12)
    assert_same(read_ply(data), splats)
    assert not is_canonical(data)


BASE = write_ply(make_splats(5))
HEAD, BODY = header_and_body(BASE)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a PLY"),
        (b"ply\nformat binary_little_endian 1.0\n", "no 'end_header'"),
        (b"ply\n" + b"comment x\n" * 10_000, "no 'end_header'"),
        (HEAD.replace(b"binary_little_endian", b"binary_middle_endian") + BODY, "line 2 is not understood"),
        (HEAD.replace(b"1.0", b"2.0") + BODY, "line 2 is not understood"),
        (HEAD.replace(b"format binary_little_endian 1.0\n", b"") + BODY, "no 'format' line"),
        (HEAD.replace(b"element vertex 5", b"element vertex -5") + BODY, "is not understood"),
        (HEAD.replace(b"element vertex 5", b"element vertex 0") + BODY, "no gaussians"),
        (HEAD.replace(b"element vertex 5", b"element vertex 6") + BODY, "cut short"),
        (HEAD.replace(b"element vertex 5", b"element point 5") + BODY, "no 'vertex' element"),
        (HEAD.replace(b"property float opacity\n", b"") + BODY, "lacks the vertex properties opacity"),
        (HEAD.replace(b"float nx", b"float x") + BODY, "names a property twice"),
        (HEAD.replace(b"float nx", b"quad nx") + BODY, "is not understood"),
        (HEAD.replace(b"float nx", b"float f_rest_0") + BODY, "1 f_rest properties"),
        (HEAD.replace(b"float nx", b"list uchar int nx") + BODY, "list property"),
        (
            HEAD.replace(b"element vertex", b"element f 1\nproperty list uchar int i\nelement vertex") + BODY,
            "put 'vertex' first",
        ),
        (HEAD.replace(b"binary_little_endian", b"ascii") + b"1 2 3 x " * 100, "not readable"),
        (HEAD.replace(b"binary_little_endian", b"ascii") + b"1 2\n", "cut short"),
        (HEAD.replace(b"binary_little_endian", b"ascii") + b"\n" * 500, "cut short"),
    ],
)  # fmt: skip
def test_what_is_no_splat_is_refused_with_the_reason(data: bytes, message: str) -> None:
    with pytest.raises(SplatError, match=message):
        read_ply(data)


@pytest.mark.parametrize("count", [5_000_001, 10**12, 10**14])
@pytest.mark.parametrize("order", [b"binary_little_endian", b"ascii"])
def test_a_header_that_claims_too_much_costs_nothing(count: int, order: bytes) -> None:
    head = HEAD.replace(b"element vertex 5", b"element vertex %d" % count).replace(
        b"binary_little_endian", order
    )
    with pytest.raises(SplatTooLarge, match=f"{count} gaussians"):
        read_ply(head + BODY)


def test_a_claim_in_a_leading_element_costs_nothing() -> None:
    head = HEAD.replace(b"element vertex", b"element camera 999999999999\nproperty double f\nelement vertex")
    with pytest.raises(SplatError, match="cut short"):
        read_ply(head + BODY)


def test_limits_hold_for_bytes() -> None:
    with pytest.raises(SplatTooLarge, match="over the limit of 100 bytes"):
        read_ply(BASE, Limits(max_bytes=100))


def test_truncation_at_every_byte_is_refused() -> None:
    for end in range(len(BASE)):
        with pytest.raises(SplatError):
            read_ply(BASE[:end])


def test_nothing_is_not_written() -> None:
    with pytest.raises(SplatError, match="without gaussians"):
        write_ply(make_splats(0))


@pytest.mark.parametrize(("file", "count"), [("hamburger.ply", 52_709), ("tmp_model_0b21e73.ply", 49_744)])
def test_real_files_are_read_and_written_back_bit_for_bit(real_splats, file: str, count: int) -> None:
    data = (real_splats / file).read_bytes()
    splats = read_ply(data)
    assert len(splats) == count
    again = read_ply(write_ply(splats, normals=b"property float nx" in data[:2000]))
    for name in FIELDS[:-1]:
        left, right = (np.ascontiguousarray(getattr(s, name)).view(np.int32) for s in (splats, again))
        np.testing.assert_array_equal(left, right)
