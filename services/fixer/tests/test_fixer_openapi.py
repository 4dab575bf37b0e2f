from __future__ import annotations

import numpy as np
import schemathesis
from fixer_client import Fixer
from fixer_splats import shell
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import positive_data_acceptance, unsupported_method
from sn17_splats import encode_spz, write_ply

FINE = shell(n=7040).replace(log_scales=np.full((7040, 3), -7, np.float32))  # small footprints: fast to draw
SPLATS = st.sampled_from([write_ply(FINE), encode_spz(FINE), write_ply(FINE.select(slice(0, 32)))])
for media in ("application/ply", "application/x-spz-404", "application/octet-stream"):
    schemathesis.openapi.media_type(media, SPLATS | st.binary(max_size=200))

schema = schemathesis.openapi.from_asgi("/openapi.json", Fixer(max_bytes=1_000_000).asgi)


@schema.parametrize()
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_service_is_what_its_schema_says(case: schemathesis.Case) -> None:
    # No schema can say which bytes are a splat: those that are not are refused with 422.
    case.call_and_validate(timeout=60, excluded_checks=[unsupported_method, positive_data_acceptance])


def test_the_schema_is_complete() -> None:
    paths = schema.raw_schema["paths"]
    assert set(paths) == {"/fix", "/diagnose", "/preview.png", "/health"}
    assert {parameter["name"] for parameter in paths["/fix"]["post"]["parameters"]} == {"policy", "place"}
    for path in ("/fix", "/diagnose", "/preview.png"):
        operation = paths[path]["post"]
        assert operation["requestBody"]["required"]
        assert set(operation["responses"]) >= {"200", "default"}
    assert "SN17-Report" in paths["/fix"]["post"]["responses"]["200"]["headers"]
