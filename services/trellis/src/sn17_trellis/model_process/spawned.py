"""A model process in an interpreter of its own, where there is no fork server."""

from __future__ import annotations

import json
import sys
from multiprocessing.connection import Connection

from sn17_trellis.model_process.child import run_model, unbroken
from sn17_trellis.settings import WorkerSettings

if __name__ == "__main__":
    connection = Connection(int(sys.argv[1]))
    settings = WorkerSettings(**json.loads(connection.recv_bytes()))
    with unbroken():
        run_model(connection, settings)
