"""Options that mean the same in every command that has them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="JSON on standard output, instead of tables.")]
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="Kubernetes namespace. Default: that of the context."),
]
Context = Annotated[
    str | None, typer.Option("--context", help="Context of the kubeconfig. Default: its current one.")
]
Kubeconfig = Annotated[
    Path | None,
    typer.Option("--kubeconfig", help="Kubeconfig file. Default: $KUBECONFIG, else ~/.kube/config."),
]
ReleaseName = Annotated[str | None, typer.Option("--release", help="Helm release in the cluster.")]
ReportFile = Annotated[
    str | None,
    typer.Option("--report", metavar="FILE", help="Write the result there as JSON, beside the tables."),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        envvar="SN17_ADMIN_TOKEN_FILE",
        help="File with the admin token of the service whose address is given.",
    ),
]
StateDir = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        help="Folder of a run on this machine. Default: the newest one of `sn17 up` below .sn17.",
    ),
]
