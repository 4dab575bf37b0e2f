"""`python -m sn17_cluster`: what is behind `make cluster-up`, `cluster-down` and `cluster-shell`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from sn17_cluster import standing
from sn17_cluster.client import Cluster
from sn17_cluster.namespaces import SetupError
from sn17_cluster.processes import NotReadyError, ProcessDiedError
from sn17_cluster.requirements import MissingError
from sn17_cluster.state import base_folder, clear_leftovers


def _shell(cluster: Cluster, command: list[str]) -> None:
    folders = dict.fromkeys(str(Path(path).parent) for path in cluster.tools.values())
    environment = cluster.environment
    environment["PATH"] = os.pathsep.join([*folders, environment.get("PATH", os.defpath)])
    argv = [
        *cluster.network,
        *([word for word in command if word != "--"] or [os.environ.get("SHELL", "/bin/sh")]),
    ]
    os.execvpe(argv[0], argv, environment)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="sn17_cluster", description="A Kubernetes on this machine, for tests."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("up", "start a cluster that stays"), ("serve", "own a cluster until a signal")):
        command = commands.add_parser(name, help=text)
        command.add_argument("--nodes", type=int, default=1)
    commands.add_parser("down", help="end it, and clear what killed runs have left")
    shell = commands.add_parser("shell", help="a shell, or a command, in its network with kubectl and helm")
    shell.add_argument("argv", nargs=argparse.REMAINDER)
    load = commands.add_parser("load", help="give its nodes image archives")
    load.add_argument("archives", nargs="+", type=Path)
    args = parser.parse_args()
    try:
        if args.command == "up":
            cluster = standing.up(args.nodes)
            print(f"export KUBECONFIG={cluster.kubeconfig}")
        elif args.command == "serve":
            standing.serve(args.nodes)
        elif args.command == "down":
            print("the cluster is down" if standing.down() else "no cluster was up")
            if base_folder().exists() and (cleared := clear_leftovers(base_folder())):
                print(f"cleared what killed runs had left: {', '.join(cleared)}")
        elif args.command == "load":
            cluster = standing.attach()
            assert cluster.load is not None
            for archive in args.archives:
                cluster.load(archive)
        else:
            _shell(standing.attach(), args.argv)
    except (MissingError, SetupError, ProcessDiedError, NotReadyError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
