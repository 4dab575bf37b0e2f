"""What the local checks need to know, from this machine."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

from sn17_protocol.wallet import WalletError, load_hotkey
from sn17_trellis.manifest import NAME, ManifestError, read_manifest, verify_manifest

from sn17.doctor.local.files import Hotkey, ModelFiles
from sn17.doctor.local.machine import Clock, Disk, Port, Python
from sn17.doctor.local.proxy import VARIABLES, Proxy
from sn17.doctor.local.torch import Torch
from sn17.doctor.model import ProbeError
from sn17.up.backends import NEEDED_BY_TORCH
from sn17.up.folder import LOCK

DEFAULT_PROXY_PORT: Final = 80
CONNECT_SECONDS: Final = 3.0
TORCH_SECONDS: Final = 60.0
STA_UNSYNC: Final = 0x40
TIME_ERROR: Final = 5
_DRIVER = Path("/proc/driver/nvidia/version")
_ASK_TORCH = """
import json, torch
found = {"version": torch.__version__, "cuda": torch.version.cuda, "devices": [], "problem": ""}
try:
    if torch.version.cuda:
        torch.cuda.init()
        found["devices"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
except Exception as error:
    found["problem"] = str(error).strip().splitlines()[0]
print(json.dumps(found))
"""


class Machine(Protocol):
    """This machine. Every method may raise ProbeError."""

    def python(self) -> Python: ...

    def disk(self, folder: Path) -> Disk: ...

    def ports(self, defaults: Sequence[int], wanted: Sequence[int]) -> tuple[Port, ...]: ...

    def proxies(self) -> tuple[Proxy, ...]: ...

    def clock(self) -> Clock: ...

    def torch(self) -> Torch: ...

    def hotkey(self, path: Path) -> Hotkey: ...

    def models(self, folders: Sequence[Path]) -> tuple[ModelFiles, ...]: ...


class LocalMachine:
    """The real one. ``environment`` is that of the process."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def python(self) -> Python:
        return Python(sys.version_info[:3], sys.executable)

    def disk(self, folder: Path) -> Disk:
        """Of the nearest folder that exists, since a run makes its own."""
        place = folder.absolute()
        while not place.exists() and place != place.parent:
            place = place.parent
        try:
            seen = os.statvfs(place)
        except OSError as error:
            raise ProbeError(f"{place}: {error.strerror}", "name another folder with --state-dir") from error
        return Disk(
            place,
            seen.f_bavail * seen.f_frsize,
            # Some file systems (btrfs) count no inodes.
            seen.f_favail if seen.f_files else None,
            place.is_dir() and os.access(place, os.W_OK | os.X_OK),
            tuple(sorted(_ended_runs(folder), key=lambda run: -run[1])),
        )

    def ports(self, defaults: Sequence[int], wanted: Sequence[int]) -> tuple[Port, ...]:
        numbers = sorted({*defaults, *wanted})
        return tuple(_port(number, wanted=number in wanted) for number in numbers)

    def proxies(self) -> tuple[Proxy, ...]:
        set_here = [
            (name, self._environment[name].strip()) for name in VARIABLES if name in self._environment
        ]
        return tuple(_proxy(name, value) for name, value in set_here if value)

    def clock(self) -> Clock:
        return Clock(_kernel_says())

    def torch(self) -> Torch:
        """By importing it in a process of its own, which may fail or hang."""
        from importlib.util import find_spec

        driver = _driver_version()
        missing = tuple(name for name in NEEDED_BY_TORCH if find_spec(name) is None)
        if missing:
            return Torch(missing, driver=driver)
        try:
            answer = subprocess.run(
                [sys.executable, "-c", _ASK_TORCH],
                capture_output=True,
                text=True,
                timeout=TORCH_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ProbeError(f"import torch takes more than {TORCH_SECONDS:.0f} s") from error
        if answer.returncode:
            last = (answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"])[-1]
            return Torch(driver=driver, problem=last)
        found = json.loads(answer.stdout.splitlines()[-1])
        return Torch((), found["version"], found["cuda"], tuple(found["devices"]), driver, found["problem"])

    def hotkey(self, path: Path) -> Hotkey:
        path = path.expanduser()
        try:
            address = load_hotkey(path).ss58_address
            return Hotkey(path, path.stat().st_mode & 0o777, address)
        except WalletError as error:
            return Hotkey(path, problem=str(error))

    def models(self, folders: Sequence[Path]) -> tuple[ModelFiles, ...]:
        """Every folder with a manifest at or below ``folders``, read through to the last byte."""
        return tuple(_model(found) for folder in folders for found in _with_manifest(folder.expanduser()))


def _ended_runs(folder: Path) -> Iterator[tuple[Path, int]]:
    for lock in folder.glob(f"*/{LOCK}"):
        with contextlib.suppress(OSError), lock.open() as held:
            # A run that is up holds its lock.
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
            sizes = (path.lstat().st_blocks * 512 for path in lock.parent.rglob("*"))
            yield lock.parent, sum(sizes)


def _port(number: int, *, wanted: bool) -> Port:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("0.0.0.0", number))
            listener.listen(1)
        except OSError as error:
            return Port(number, False, wanted, _holder(number), error.strerror or str(error))
    return Port(number, True, wanted)


def _holder(number: int) -> tuple[str, int] | None:
    """Name and id of the process that listens there, where this user may see it."""
    sockets = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == number:
                    sockets.add(f"socket:[{fields[9]}]")
    for link in Path("/proc").glob("[0-9]*/fd/*") if sockets else ():
        with contextlib.suppress(OSError):
            if os.readlink(link) in sockets:
                process = link.parent.parent
                return (process / "comm").read_text().strip(), int(process.name)
    return None


def _proxy(variable: str, value: str) -> Proxy:
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        host, port = parts.hostname or "", parts.port or DEFAULT_PROXY_PORT
    except ValueError:
        return Proxy(variable, "not shown", "is not an address such as http://proxy.example:3128")
    if not host:
        return Proxy(variable, "not shown", "names no host")
    address = f"{host}:{port}"
    if parts.scheme not in ("http", "https"):
        return Proxy(variable, address, f"{parts.scheme} is not supported, only http and https are")
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError as error:
        return Proxy(variable, address, f"does not answer ({error.strerror or error})")
    return Proxy(variable, address)


class _Timex(ctypes.Structure):
    """``struct timex`` of adjtimex(2) up to what is read here; the rest is room."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("room", ctypes.c_char * 256),
    )


def _kernel_says() -> bool | None:
    if platform.system() != "Linux":
        return None
    asked = _Timex()
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(asked))
    if state < 0:
        return None
    return state != TIME_ERROR and not asked.status & STA_UNSYNC


def _driver_version() -> str | None:
    try:
        line = _DRIVER.read_text().splitlines()[0]
    except (OSError, IndexError):
        return None
    return next((word for word in line.split() if word[:1].isdigit() and "." in word), "of unknown version")


def _with_manifest(folder: Path) -> list[Path]:
    """Raises ProbeError."""
    if not folder.is_dir():
        raise ProbeError(f"{folder} is not a folder", "name the folder of a checkpoint with --model")
    found = sorted(path.parent for path in folder.glob(f"**/{NAME}"))
    return found or [folder]


def _model(folder: Path) -> ModelFiles:
    into = folder.parent.parent
    try:
        manifest = read_manifest(folder)
        if manifest is None:
            return ModelFiles(folder, None, into)
        fetched = f"{manifest.repository}@{manifest.commit}"
    except ManifestError as error:
        return ModelFiles(folder, None, into, str(error))
    try:
        verify_manifest(folder, hashes=True)
    except (ManifestError, OSError) as error:
        return ModelFiles(folder, fetched, into, str(error))
    return ModelFiles(folder, fetched, into)
