"""The data port: ``/fix``, ``/diagnose`` and ``/preview.png``."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Final, TypeVar

from fastapi import FastAPI, Query, Request, Response
from prometheus_client import Counter, Gauge, Histogram
from sn17_contract.fixer import FixVerdict
from sn17_contract.http import HEADER_REPORT, MEDIA_PLY, MEDIA_SPZ, Code
from sn17_contract.metrics import Metric
from sn17_service import Service, refuse_unknown_query
from sn17_service.bodies import media_type
from sn17_service.problems import Problem
from sn17_splats import Limits, SplatError, SplatTooLarge
from starlette.requests import ClientDisconnect

from sn17_fixer.admission import PEAK_FACTOR, MemoryBudget, Reservation
from sn17_fixer.model import PolicyName
from sn17_fixer.policy import FixOptions
from sn17_fixer.reference import TRELLIS, Reference
from sn17_fixer.render.camera import IMAGE_SIZE
from sn17_fixer.report import FULL_REPORT, FullReport, diagnosis_report, full_report, header_report
from sn17_fixer.settings import FixerSettings
from sn17_fixer.work import Format, Stopwatch, run_diagnose, run_fix, run_preview, unpacked_bytes

FORM_TYPES: Final = ("multipart/form-data",)
MEDIA_MIXED: Final = "multipart/mixed"
_MEMORY_SHARE: Final = 0.6
_DEFAULT_MEMORY: Final = 4 * 1024**3
_STAGES: Final = ("read", "fix", "diagnose", "encode", "render")
_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
_BODY: Final = {
    "requestBody": {
        "required": True,
        "description": "A splat: PLY in the INRIA convention, or the subnet's SPZ; told apart by its bytes.",
        "content": {MEDIA_PLY: _BINARY, MEDIA_SPZ: _BINARY, "application/octet-stream": _BINARY},
    }
}

T = TypeVar("T")


class FixerApp:
    """Routes, the thread pool they work on, and the metrics that they leave."""

    def __init__(self, service: Service, settings: FixerSettings) -> None:
        self._service = service
        self._settings = settings
        self._limits = Limits(settings.max_bytes, settings.max_gaussians)
        self.budget = MemoryBudget(settings.work_memory_bytes or _budget(service))
        self._pool = ThreadPoolExecutor(settings.threads or os.cpu_count() or 1, thread_name_prefix="fix")
        self._reference = _reference(settings)
        self._fixes = Counter(Metric.FIXES, "Splats fixed.", ["policy", "verdict"], registry=service.registry)
        for policy in PolicyName:
            for verdict in FixVerdict:
                self._fixes.labels(policy.value, verdict.value)
        duration = Histogram(
            Metric.FIX_DURATION,
            "Seconds in a stage of the work on one splat.",
            ["stage"],
            buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
            registry=service.registry,
        )
        for stage in _STAGES:
            duration.labels(stage)
        self._watch = Stopwatch(lambda stage, seconds: duration.labels(stage).observe(seconds))
        self._inflight = Gauge(Metric.FIX_INFLIGHT, "Splats held in memory.", registry=service.registry)

    def build(self) -> FastAPI:
        """The application of the data port."""
        app = self._service.new_app("sn17 fixer", self._settings.max_bytes)
        app.post(
            "/fix",
            summary="Diagnose, repair and encode a splat",
            response_class=Response,
            responses={
                200: {
                    "description": "The asset; `SN17-Report` holds a compact report as JSON.",
                    "headers": {HEADER_REPORT: {"schema": {"type": "string", "maxLength": 4096}}},
                    "content": {MEDIA_SPZ: _BINARY, MEDIA_PLY: _BINARY, MEDIA_MIXED: _BINARY},
                }
            },
            openapi_extra=_BODY,
        )(self.fix)
        app.post(
            "/diagnose",
            summary="Describe a splat without changing it",
            response_model=FullReport,
            openapi_extra=_BODY,
        )(self.diagnose)
        app.post(
            "/preview.png",
            summary="Two by two views of a splat, as judges see it",
            response_class=Response,
            responses={200: {"description": "The picture", "content": {"image/png": _BINARY}}},
            openapi_extra=_BODY,
        )(self.preview)
        app.get("/health", summary="Whether the process serves")(health)
        return app

    async def fix(
        self,
        request: Request,
        policy: Annotated[PolicyName | None, Query(description="default: the service's setting")] = None,
        place: Annotated[
            bool | None,
            Query(description="centre and scale for the validator; default: the service's setting"),
        ] = None,
    ) -> Response:
        """Answers with the asset as the subnet's SPZ, or what `Accept` asks for.

        `multipart/mixed` answers with the full report first and the asset as SPZ second.
        """
        refuse_unknown_query(request, ("policy", "place"))
        media = negotiate(request.headers.get("accept"))
        output = Format.PLY if media == MEDIA_PLY else Format.SPZ
        options = FixOptions(
            policy=policy or self._settings.policy,
            place=self._settings.place if place is None else place,
            seed=self._settings.seed,
            reference=self._reference,
        )
        fixed, asset = await self._work(
            request, lambda data: run_fix(data, options, output, self._limits, self._watch)
        )
        self._fixes.labels(options.policy.value, fixed.verdict.value).inc()
        headers = {HEADER_REPORT: header_report(fixed)}
        self._service.log.info(
            "fixed",
            extra={
                "policy": options.policy.value,
                "verdict": fixed.verdict.value,
                "reasons": ",".join(fixed.reasons),
                "gaussians_in": fixed.before.gaussians,
                "gaussians_out": fixed.after.gaussians,
            },
        )
        if media != MEDIA_MIXED:
            return Response(asset, media_type=media, headers=headers)
        report = FULL_REPORT.dump_json(full_report(fixed, options.policy.value))
        boundary = secrets.token_hex(16)
        body = multipart(boundary, ("application/json", report), (MEDIA_SPZ, asset))
        headers["content-type"] = f"{MEDIA_MIXED}; boundary={boundary}"
        return Response(body, headers=headers)

    async def diagnose(self, request: Request) -> Response:
        """Answers with everything that one pass over the splat shows, and a verdict with its reasons."""
        refuse_unknown_query(request, ())
        diagnosis = await self._work(request, lambda data: run_diagnose(data, self._limits, self._watch))
        report = FULL_REPORT.dump_json(diagnosis_report(diagnosis))
        return Response(report, media_type="application/json")

    async def preview(
        self,
        request: Request,
        size: Annotated[int, Query(ge=32, le=1024, description="pixels of one view's side")] = IMAGE_SIZE,
    ) -> Response:
        """Answers with the views that judges compare, rendered as the validator renders them."""
        refuse_unknown_query(request, ("size",))
        picture = await self._work(request, lambda data: run_preview(data, size, self._limits, self._watch))
        return Response(picture, media_type="image/png")

    async def _work(self, request: Request, work: Callable[[bytearray], T]) -> T:
        self._inflight.inc()
        try:
            with self.budget.reservation() as reservation:
                data = await self._body(request, reservation)
                try:
                    reservation.at_least(PEAK_FACTOR * unpacked_bytes(data, self._limits))
                    loop = asyncio.get_running_loop()
                    return await loop.run_in_executor(self._pool, work, data)
                except SplatTooLarge as error:
                    raise Problem(Code.TOO_LARGE, str(error)) from error
                except SplatError as error:
                    raise Problem(Code.BAD_SPLAT, str(error)) from error
        finally:
            self._inflight.dec()

    async def _body(self, request: Request, reservation: Reservation) -> bytearray:
        """The whole body in one buffer; memory is reserved before it is taken."""
        if self._service.drain.current is not None:
            raise Problem(Code.DRAINING, "the fixer is draining; send it to another", retry_after_seconds=5)
        _refuse_forms(request)
        announced = int(request.headers.get("content-length", 0))
        reservation.at_least(PEAK_FACTOR * announced)
        data = bytearray()
        try:
            async for chunk in request.stream():
                reservation.at_least(PEAK_FACTOR * (len(data) + len(chunk)))
                data += chunk
        except ClientDisconnect:
            raise Problem(Code.BAD_REQUEST, "the client left before its body was whole", status=499) from None
        return data

    def close(self) -> None:
        """Wait for the work that was taken in."""
        self._pool.shutdown(wait=True)


async def health() -> dict[str, str]:
    """The process serves."""
    return {"status": "healthy"}


def negotiate(accept: str | None) -> str:
    """The media type to answer with. Raises :class:`Problem` with status 406 where none fits."""
    if not accept:
        return MEDIA_SPZ
    offers: dict[str, float] = {}
    for item in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        offers[kind] = quality
    best, best_quality = None, 0.0
    for media in (MEDIA_SPZ, MEDIA_PLY, MEDIA_MIXED):
        for kind in (media, media.split("/")[0] + "/*", "*/*"):
            if kind in offers:
                if offers[kind] > best_quality:
                    best, best_quality = media, offers[kind]
                break
    if best is None:
        raise Problem(
            Code.BAD_REQUEST,
            f"Accept must allow {MEDIA_SPZ}, {MEDIA_PLY} or {MEDIA_MIXED}",
            status=406,
        )
    return best


def multipart(boundary: str, *parts: tuple[str, bytes]) -> bytes:
    """A ``multipart/mixed`` body (RFC 2046, section 5.1)."""
    pieces: list[bytes] = []
    for media, content in parts:
        head = f"--{boundary}\r\nContent-Type: {media}\r\nContent-Length: {len(content)}\r\n\r\n"
        pieces += [head.encode(), content, b"\r\n"]
    return b"".join([*pieces, f"--{boundary}--\r\n".encode()])


def _refuse_forms(request: Request) -> None:
    """A form wraps the splat in text of its own; curl's -F sends one."""
    kind = media_type(request)
    if kind in FORM_TYPES:
        raise Problem(
            Code.BAD_REQUEST,
            f"the body is a form ({kind}); send the splat's bytes as the raw body, "
            "with curl: --data-binary @FILE -H 'Content-Type: application/octet-stream'",
            status=415,
        )


def _budget(service: Service) -> int:
    reading = service.read_memory()
    if reading is None or reading.limit is None:
        return _DEFAULT_MEMORY
    return int(reading.limit * _MEMORY_SHARE)


def _reference(settings: FixerSettings) -> Reference:
    mean, std = settings.reference_mean, settings.reference_std
    return TRELLIS if mean is None or std is None else Reference(mean, std, assets=0)
