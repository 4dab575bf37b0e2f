"""The fork server: imports are paid for once, and no device is touched before a model process is forked.

It is a process between service and model: the service watches it, it watches the models, and the kernel ends
each when its parent thread ends. When the fork server dies, its models die with it; the service then starts
another one.
"""

from __future__ import annotations

import gc
import importlib
import json
import logging
import os
import selectors
import signal
import socket
import sys
from multiprocessing.connection import Connection
from typing import Any, Final, NoReturn

from sn17_service import become_subreaper, configure_logging, die_with

from sn17_trellis.model_process.child import run_model, unbroken
from sn17_trellis.settings import WorkerSettings

PRELOAD: Final = {
    "procedural": ("sn17_trellis.procedural",),
    "torch": ("sn17_trellis.torch_backend",),
    "reference": ("torch",),
}
"""Modules by backend. Whatever is listed here must leave the device alone when it is imported."""
MAX_MESSAGE: Final = 64 * 1024

log = logging.getLogger("sn17.trellis.forkserver")


def preload(backend: str) -> None:
    """Import what a model process of this backend needs; what is missing it will report itself."""
    for module in PRELOAD[backend]:
        try:
            importlib.import_module(module)
        except ImportError as error:
            log.info("not preloaded: %s", error)


class _Server:
    """One thread. Packets: ``{"start": life}`` with a socket, ``{"kill": pid}``; out go started and ended."""

    def __init__(self, control: socket.socket, settings: WorkerSettings) -> None:
        self._control = control
        self._settings = settings
        self._children: set[int] = set()
        self._wake, wakened = socket.socketpair()
        self._wake.setblocking(False)
        wakened.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakened.fileno(), warn_on_full_buffer=False)
        self._wakened = wakened

    def serve(self) -> None:
        self._tell({"ready": os.getpid()})
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._control:
                        if not self._obey(selector):
                            return
                    else:
                        self._drain()
                self._reap()

    def _obey(self, selector: selectors.BaseSelector) -> bool:
        packet, sockets, _, _ = socket.recv_fds(self._control, MAX_MESSAGE, 1)
        if not packet:
            return False
        asked: dict[str, Any] = json.loads(packet)
        if "kill" in asked:
            if asked["kill"] in self._children:
                _kill_group(asked["kill"])
            return True
        pid = os.fork()
        if pid == 0:
            selector.close()
            self._become_model(sockets[0])
        os.close(sockets[0])
        self._children.add(pid)
        _lead_group(pid)
        self._tell({"started": asked["start"], "pid": pid})
        return True

    def _become_model(self, descriptor: int) -> NoReturn:
        code = 1
        try:
            parent = os.getppid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for one in (self._control, self._wake, self._wakened):
                one.close()
            _lead_group(0)
            die_with(parent)
            with unbroken():
                run_model(Connection(descriptor), self._settings)
            code = 0
        except BaseException:
            log.exception("the model process ended")
        finally:
            logging.shutdown()
            os._exit(code)

    def _drain(self) -> None:
        try:
            while self._wake.recv(1024):
                pass
        except BlockingIOError:
            return

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._children:
                self._children.discard(pid)
                _kill_group(pid)
                self._tell({"ended": pid, "status": os.waitstatus_to_exitcode(status)})

    def _tell(self, told: dict[str, Any]) -> None:
        self._control.send(json.dumps(told).encode())


def _lead_group(pid: int) -> None:
    """Parent and child both do it, so that it is done for whoever comes first."""
    try:
        os.setpgid(pid, pid)
    except (PermissionError, ProcessLookupError):
        return


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (PermissionError, ProcessLookupError):
        return


def main() -> int:
    """Arguments: the control socket's descriptor and the id of the service process."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    die_with(parent)
    # What a model process has started comes here when it ends, and is reaped like the models.
    become_subreaper()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=descriptor)
    settings = WorkerSettings(**json.loads(control.recv(MAX_MESSAGE)))
    configure_logging(settings.log_format, settings.log_level)
    preload(settings.backend)
    gc.collect()
    gc.freeze()
    try:
        _Server(control, settings).serve()
    except (BrokenPipeError, ConnectionResetError):
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
