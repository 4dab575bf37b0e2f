from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from email import message_from_bytes

import numpy as np
import pytest
from fixer_client import Fixer, client
from fixer_splats import assert_same_bits, shell
from PIL import Image
from sn17_contract.http import HEADER_REPORT, LeaseOwner
from sn17_fixer.app import negotiate
from sn17_service.problems import Problem
from sn17_splats import decode_spz, encode_spz, read_ply, write_ply

PLY = {"accept": "application/ply"}
HEALTHY = write_ply(shell())


async def test_a_healthy_splat_is_encoded_for_the_subnet() -> None:
    fixer = Fixer()
    async with client(fixer) as http:
        answer = await http.post("/fix", content=HEALTHY)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-spz-404")
    assert answer.content == encode_spz(shell())
    report = json.loads(answer.headers[HEADER_REPORT])
    figures = {
        name: report.pop(name) for name in ("alpha_mean", "transparent_share", "logit_mean", "logit_std")
    }
    assert report == {
        "schema": "sn17.fixer/v1", "verdict": "healthy", "reasons": [], "gaussians_in": 9600,
        "gaussians_out": 9600, "pos_inf": 0, "gates_pass": True, "steps": [],
    }  # fmt: skip
    assert figures["transparent_share"] == pytest.approx(0, abs=0.002)
    assert figures["logit_mean"] == pytest.approx(3.86, abs=0.1)
    assert figures["alpha_mean"] == pytest.approx(0.88, abs=0.03)
    assert fixer.metric("sn17_fixes_total", policy="measured", verdict="healthy") == 1
    assert fixer.metric("sn17_fix_duration_seconds_count", stage="encode") == 1
    assert fixer.metric("sn17_fix_inflight") == 0


@pytest.mark.parametrize("layout", [True, False])
async def test_a_healthy_ply_comes_back_bit_for_bit(layout: bool) -> None:
    data = write_ply(shell(), normals=layout)
    async with client(Fixer()) as http:
        answer = await http.post("/fix", content=data, headers=PLY)
    assert answer.content == data


async def test_a_ply_with_comments_comes_back_canonical() -> None:
    data = HEALTHY.replace(b"1.0\n", b"1.0\ncomment made elsewhere\n", 1)
    async with client(Fixer()) as http:
        answer = await http.post("/fix", content=data, headers=PLY)
    assert answer.content == HEALTHY


async def test_spz_goes_in_and_out() -> None:
    async with client(Fixer()) as http:
        answer = await http.post("/fix", content=encode_spz(shell()))
    assert_same_bits(
        decode_spz(answer.content), decode_spz(encode_spz(shell())), "positions", "f_dc", "log_scales"
    )
    assert json.loads(answer.headers[HEADER_REPORT])["pos_inf"] > 0


async def test_policies_and_placement_are_asked_for() -> None:
    dim = write_ply(shell(trellis=False, mean=-2.0, std=2.9))
    async with client(Fixer(policy="none")) as http:
        plain, phase1, placed = [
            read_ply((await http.post(f"/fix{query}", content=dim, headers=PLY)).content)
            for query in ("", "?policy=phase1", "?policy=measured&place=1")
        ]
    assert plain.opacity_logits.mean() == pytest.approx(-2, abs=0.1)
    assert phase1.opacity_logits.mean() == pytest.approx(4, abs=0.1)
    assert placed.opacity_logits.mean() == pytest.approx(-2, abs=0.1)
    assert np.ptp(placed.positions, axis=0).max() == pytest.approx(1.5, rel=1e-5)


async def test_the_full_report_and_the_asset_in_one_answer() -> None:
    splats = shell()
    splats.positions[5] = np.nan
    async with client(Fixer()) as http:
        answer = await http.post("/fix", content=write_ply(splats), headers={"accept": "multipart/mixed"})
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    report, asset = message_from_bytes(head + answer.content).get_payload()
    full = json.loads(report.get_payload(decode=True))
    assert (full["verdict"], full["reasons"], full["policy"]) == ("repaired", ["nonfinite_rows"], "measured")
    assert full["before"]["gaussians"] == 9600
    assert full["after"]["gaussians"] == 9599
    assert full["steps"][0]["name"] == "drop_bad_rows"
    assert asset.get_content_type() == "application/x-spz-404"
    assert len(decode_spz(asset.get_payload(decode=True))) == 9599


async def test_diagnose_changes_nothing_and_tells_all() -> None:
    splats = shell(n=6400)
    async with client(Fixer()) as http:
        answer = await http.post("/diagnose", content=write_ply(splats))
    report = answer.json()
    assert (report["verdict"], report["reasons"]) == ("unrepairable", ["too_few_gaussians"])
    assert report["before"]["extents"]["max_extent"] == pytest.approx(0.84, abs=0.02)
    assert report["after"] is None


async def test_preview_is_a_picture() -> None:
    async with client(Fixer()) as http:
        answer = await http.post("/preview.png?size=40", content=HEALTHY)
        refused = await http.post("/preview.png?size=5000", content=HEALTHY)
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answer.content)).size == (85, 85)
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_request")


@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [
        (b"", 422, "bad_splat", "neither a PLY nor"),
        (b"GIF89a", 422, "bad_splat", "neither a PLY nor"),
        (HEALTHY[:-1], 422, "bad_splat", "cut short"),
        (encode_spz(shell())[:-9], 422, "bad_splat", "damaged"),
        (b"\x1f\x8b" + bytes(40), 422, "bad_splat", "Niantic"),
        (HEALTHY.replace(b"vertex 9600", b"vertex 9999999999"), 413, "too_large", "9999999999 gaussians"),
    ],
)
@pytest.mark.parametrize("route", ["/fix", "/diagnose", "/preview.png"])
async def test_what_is_no_splat_is_refused_and_counted(route, body, status, code, words) -> None:
    fixer = Fixer()
    async with client(fixer) as http:
        answer = await http.post(route, content=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["code"] == code
    assert words in answer.json()["detail"]
    assert fixer.metric("sn17_refusals_total", code=code) == 1
    assert fixer.app.budget.used == 0


@pytest.mark.parametrize("half", [{"reference_mean": 3.0}, {"reference_std": 2.0}])
def test_half_a_reference_is_refused(half: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="go together"):
        Fixer(**half)


async def test_positions_that_spz_cannot_hold_are_refused_by_row() -> None:
    splats = shell()
    splats.positions[12, 0] = np.nan
    async with client(Fixer()) as http:
        answer = await http.post("/fix?policy=none", content=write_ply(splats))
    assert answer.status_code == 422
    assert "gaussian 12" in answer.json()["detail"]


@pytest.mark.parametrize("query", ["policy=flat", "policy=", "place=7", "place=maybe"])
async def test_unknown_settings_are_refused(query: str) -> None:
    async with client(Fixer()) as http:
        answer = await http.post(f"/fix?{query}", content=HEALTHY)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_request")


async def test_a_body_over_the_limit_is_refused_unread() -> None:
    async with client(Fixer(max_bytes=1000)) as http:
        answer = await http.post("/fix", content=HEALTHY)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_memory_is_the_limit_and_says_when_to_come_again() -> None:
    fixer = Fixer(work_memory_bytes=6 * len(HEALTHY))
    released = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield HEALTHY[:200_000]
        await released.wait()
        yield HEALTHY[200_000:]

    async with client(fixer) as http:
        length = {"content-length": str(len(HEALTHY))}
        first = asyncio.create_task(http.post("/fix", content=slowly(), headers=length))
        while fixer.app.budget.used == 0:
            await asyncio.sleep(0)
        second = await http.post("/fix", content=HEALTHY)
        released.set()
        answered = await first
        third = await http.post("/fix", content=HEALTHY)
    assert (second.status_code, second.json()["code"]) == (503, "overloaded")
    assert int(second.headers["retry-after"]) >= 1
    assert (answered.status_code, third.status_code) == (200, 200)
    assert fixer.metric("sn17_refusals_total", code="overloaded") == 1
    assert fixer.app.budget.used == 0


async def test_a_body_of_unknown_length_is_reserved_as_it_grows() -> None:
    fixer = Fixer(work_memory_bytes=len(HEALTHY))

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(HEALTHY), 50_000):
            yield HEALTHY[start : start + 50_000]

    async with client(fixer) as http:
        answer = await http.post("/fix", content=chunks())
    assert answer.json()["code"] == "too_large"
    assert fixer.app.budget.used == 0


async def test_a_small_file_that_unpacks_to_much_is_weighed_unpacked() -> None:
    splats = shell(n=96_000)
    data = encode_spz(splats.select(np.zeros(96_000, int)))
    fixer = Fixer(work_memory_bytes=8 * len(data) + 1_000_000)
    async with client(fixer) as http:
        answer = await http.post("/fix", content=data)
    assert len(data) < 100_000
    assert answer.json()["code"] == "too_large"


async def test_a_draining_fixer_takes_nothing_new() -> None:
    fixer = Fixer()
    fixer.service.drain.hold(LeaseOwner.USER, "maintenance")
    async with client(fixer) as http:
        answer = await http.post("/fix", content=HEALTHY)
    assert (answer.status_code, answer.json()["code"]) == (503, "draining")


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        (None, "application/x-spz-404"),
        ("*/*", "application/x-spz-404"),
        ("application/ply", "application/ply"),
        ("application/*;q=0.5, application/ply", "application/ply"),
        ("text/html, multipart/mixed;q=0.9", "multipart/mixed"),
        ("application/x-spz-404;q=0, */*", "application/ply"),
        ("APPLICATION/PLY ; q=1.0", "application/ply"),
    ],
)
def test_the_answer_is_what_accept_prefers(accept: str | None, media: str) -> None:
    assert negotiate(accept) == media


@pytest.mark.parametrize("accept", ["text/html", "application/ply;q=0", "application/ply;q=x", ";", ","])
def test_an_accept_that_nothing_fits_is_refused(accept: str) -> None:
    with pytest.raises(Problem) as refused:
        negotiate(accept)
    assert refused.value.status == 406


async def test_a_form_is_named_and_the_raw_body_is_asked_for() -> None:
    async with client(Fixer()) as http:
        for path in ("/fix", "/diagnose", "/preview.png"):
            answer = await http.post(path, files={"file": ("x.ply", HEALTHY)})
            assert (answer.status_code, answer.json()["code"]) == (415, "bad_request")
            assert "multipart/form-data" in answer.json()["detail"]
            assert "--data-binary" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/fix?polcy=phase1", "did you mean policy"),
        ("/fix?Place=1", "did you mean place"),
        ("/fix?policy=none&policy=phase1", "given twice"),
        ("/diagnose?policy=none", "known: none"),
        ("/preview.png?siz=64", "did you mean size"),
    ],
)
async def test_a_typo_in_the_address_is_never_a_default(path: str, hint: str) -> None:
    async with client(Fixer()) as http:
        answer = await http.post(path, content=HEALTHY)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_request")
    assert hint in answer.json()["detail"]
