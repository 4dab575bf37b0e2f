"""Takes out of an image's environment what the program in it never loads.

    /opt/sn17/bin/python dev/tools/image/trim.py MODULE ...

MODULE is what the image's entry point imports. What goes is listed below and nothing else: parts that come
with a package and that only its own tests, its builders or another of its users load. The modules are then
imported in a new process, which also makes their byte code; where the Kubernetes client is in the image, it
makes one request with what is left.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

PACKAGES = Path(sysconfig.get_path("purelib"))
PROOF = Path(__file__).with_name("prove_client.py")

# Relative to the packages' folder.
NEVER_LOADED = [
    "numpy/**/tests",  # NumPy's own tests
    "numpy/f2py",  # for building extensions
    "numpy/**/*.a",
    "numpy/distutils",
    "numba/**/tests",
    "PIL/_avif*.so",  # a picture format that no service takes, with its encoder
    "pillow.libs/libavif*",
    "torch/include",
    "nvidia/**/include",
    "nvidia/**/*.a",
    "nvidia/nvshmem/lib/*.bc",  # for kernels that talk to other GPUs themselves
    "nvidia/*/lib/libcusolverMg.so*",  # no library here refers to it
    "zstandard/_cffi*.so",  # the backend for other interpreters than CPython
    "zstandard/backend_cffi.py",
]

# One module per kind of object and API group, loaded when it is first named.
GENERATED = ["kubernetes/client/api", "kubernetes/client/models"]
GENERATED += [folder.replace("/", "/aio/", 1) for folder in GENERATED]


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def main(modules: list[str]) -> None:
    for module in modules:
        importlib.import_module(module)
    loaded = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    for pattern in NEVER_LOADED:
        for path in sorted(PACKAGES.glob(pattern)):
            if path.exists():
                remove(path)
    for folder in GENERATED:
        for path in (PACKAGES / folder).glob("[!_]*.py"):
            if str(path) not in loaded:
                remove(path)
    for cached in PACKAGES.glob("**/__pycache__"):
        shutil.rmtree(cached)
    subprocess.run([sys.executable, "-c", f"import {', '.join(modules)}"], check=True)
    if (PACKAGES / "kubernetes").exists():
        subprocess.run([sys.executable, str(PROOF)], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
