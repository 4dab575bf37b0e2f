"""``python -m sn17_gateway``: serve the gateway."""

from __future__ import annotations

import sys
from importlib.metadata import version

from sn17_service import Service
from sn17_service.server import TlsFiles
from sn17_service.settings import load_settings

from sn17_gateway.admin import keys_router
from sn17_gateway.app import build_app
from sn17_gateway.gateway import Gateway
from sn17_gateway.settings import GatewaySettings
from sn17_gateway.storage.database import StorageError


def main() -> None:
    """Serve until told to stop."""
    settings = load_settings(GatewaySettings, prog="sn17-gateway", description=__doc__ or "")
    code = 1
    service = Service("gateway", version("sn17-gateway"), settings)
    try:
        if settings.tls_cert_file is not None and settings.tls_key_file is not None:
            service.tls = TlsFiles(settings.tls_cert_file, settings.tls_key_file)
            service.tls.check()
        gateway = Gateway(service, settings)
        service.add_ops_router(keys_router(gateway), admin=True)
        code = service.main(build_app(gateway))
    except* (StorageError, ValueError, OSError) as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        sys.stderr.write(f"sn17-gateway: {first}\n")
    raise SystemExit(code)


if __name__ == "__main__":
    main()
