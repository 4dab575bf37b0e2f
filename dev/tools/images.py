#!/usr/bin/env python3
"""Builds the container images: with docker where its daemon answers, else with buildah (as root).

    python3 dev/tools/images.py                      all images, the worker with the procedural backend
    python3 dev/tools/images.py operator trellis-torch
    python3 dev/tools/images.py --archives           and write each as an archive for kind, k3d or ctr
    python3 dev/tools/images.py --tag release        tagged with the version, as the chart asks for by itself

Without --tag or $TAG the tag is that of `release.py tag`: the commit, or the version where HEAD is a release.
The chart finds such images with `--set image.tag=TAG`.

$TORCH_INDEX names an index with another build of torch, such as one without CUDA.
With docker the base is the Dockerfiles' own, or $BASE. With buildah it is $BASE, or else one made with
debootstrap, which needs Debian's packages and no image registry. What is kept between runs (base, layers,
downloads, archives) lives in `$SN17_IMAGES` or `~/.cache/sn17-images`.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import release

REPOSITORY = Path(__file__).resolve().parents[2]
VERSION = release.current()
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
INPUTS_LABEL = "io.sn17.inputs"
MAX_LAYERS_MB = {"fixer": 350, "trellis-torch": 8000}
USUAL_MAX_LAYERS_MB = 150


@dataclass(frozen=True)
class Image:
    """One image: its name and tag, the workspace package it holds, and the target in its Dockerfile."""

    tag: str
    repository: str
    package: str
    target: str = ""

    @property
    def dockerfile(self) -> Path:
        return REPOSITORY / f"Dockerfile.{self.repository}"

    @property
    def name(self) -> str:
        return f"docker.io/sn17/{self.repository}:{self.tag}{'-' if self.target else ''}{self.target}"


IMAGES = {
    "operator": ("operator", "sn17-operator"),
    "trellis": ("trellis", "sn17-trellis", "procedural"),
    "trellis-torch": ("trellis", "sn17-trellis", "torch"),
    "fixer": ("fixer", "sn17-fixer"),
    "gateway": ("gateway", "sn17-gateway"),
    "miner": ("miner", "sn17-miner"),
    "tools": ("tools", "sn17"),
}
TAG_FORM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
"""What registries take, with room for the backend behind it."""
DEFAULT = [name for name in IMAGES if name != "trellis-torch"]


class BuildError(Exception):
    """What stands in the way, in one sentence for the person at the terminal."""


def cache() -> Path:
    return Path(os.environ.get("SN17_IMAGES") or Path.home() / ".cache" / "sn17-images")


def run(argv: Sequence[str], *, quiet: bool = False) -> str:
    """Run a program and return what it prints; `quiet` keeps its messages unless it fails."""
    answer = subprocess.run(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE if quiet else None, text=True, check=False
    )
    if answer.returncode:
        sys.stderr.write(answer.stdout + (answer.stderr or ""))
        raise BuildError(f"{' '.join(argv[:2])} failed with exit code {answer.returncode}")
    return answer.stdout.strip()


def sources(package: str) -> list[Path]:
    """The folders of a workspace package and of those it needs, and what the workspace shares."""
    folders = {tomllib.loads(file.read_text())["project"]["name"]: file.parent for file in release.packages()}
    found: dict[str, Path] = {}
    waiting = [package]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = folders[name]
            settings = tomllib.loads((found[name] / "pyproject.toml").read_text())
            waiting += settings.get("tool", {}).get("uv", {}).get("sources", {})
    return [REPOSITORY / "pyproject.toml", REPOSITORY / "uv.lock", *sorted(found.values())]


def options(image: Image) -> dict[str, str]:
    """Build arguments of this image alone that the environment gives."""
    return {"TORCH_INDEX": os.environ.get("TORCH_INDEX", "")} if image.target == "torch" else {}


def inputs(image: Image) -> str:
    """A hash of all that makes the image: one that would come out the same is not built again."""
    given = [image.target, os.environ.get("BASE", ""), *options(image).values()]
    digest = hashlib.sha256(" ".join(given).encode())
    files = [image.dockerfile, REPOSITORY / ".dockerignore"]
    for source in (REPOSITORY / "dev" / "tools" / "image", *sources(image.package)):
        files += [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
    for path in sorted(files):
        relative = path.relative_to(REPOSITORY)
        if (path.suffix != ".md" or path.name == "README.md") and not {"tests", "__pycache__"} & set(
            relative.parts
        ):
            digest.update(f"{relative}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def revision(image: Image) -> str:
    """The last commit that touched what the image is made of."""
    git = ["git", "-C", str(REPOSITORY), "log", "-1", "--format=%H", "--"]
    paths = [str(path) for path in (image.dockerfile, *sources(image.package))]
    answer = subprocess.run([*git, *paths], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"


def arguments(image: Image, base: str) -> list[str]:
    """What docker's and buildah's build commands take alike."""
    settings = {"VERSION": VERSION, "REVISION": revision(image), "BASE": base, **options(image)}
    argv = [f"--build-arg={name}={value}" for name, value in settings.items() if value]
    if image.target:
        argv.append(f"--target={image.target}")
    argv.append(f"--label={INPUTS_LABEL}={inputs(image)}")
    return [*argv, f"--file={image.dockerfile}", f"--tag={image.name}", str(REPOSITORY)]


class Docker:
    """Builds with the docker daemon, into its own store."""

    def build(self, image: Image) -> None:
        certificates = os.environ.get("SSL_CERT_FILE", "")
        argv = [f"--build-arg=SSL_CERT_FILE={certificates}"] if certificates else []
        run(["docker", "build", *argv, *arguments(image, os.environ.get("BASE", ""))], quiet=True)

    def built_from(self, image: Image) -> str:
        """The inputs of the image as it is in the store; empty when there is none."""
        label = f'--format={{{{index .Config.Labels "{INPUTS_LABEL}"}}}}'
        argv = ["docker", "image", "inspect", label, image.name]
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()

    def layers_mb(self, image: Image) -> float | None:
        """Unknown: docker's history does not say where the base ends."""
        return None

    def save(self, image: Image, archive: Path) -> None:
        run(["docker", "save", f"--output={archive}", image.name])


class Buildah:
    """Builds without a daemon, in a store of its own below the cache folder."""

    def __init__(self) -> None:
        if os.geteuid() != 0:
            raise BuildError(
                "building images without docker's daemon needs root (buildah --isolation chroot)"
            )
        self._command = [
            "buildah",
            f"--root={cache() / 'storage'}",
            f"--runroot={cache() / 'run'}",
            "--storage-driver=overlay",
        ]

    def build(self, image: Image) -> None:
        argv = [*self._command, "build", "--isolation=chroot", "--format=oci", "--quiet"]
        # The machine's certificates, among them those of a proxy that it may need.
        if Path(CERTIFICATES).exists():
            folder = str(Path(CERTIFICATES).parent)
            argv += [f"--volume={folder}:{folder}:ro", f"--build-arg=SSL_CERT_FILE={CERTIFICATES}"]
        # In place of cache mounts, which this isolation cannot clean up after: five images, one download.
        downloads = cache() / "downloads"
        downloads.mkdir(exist_ok=True)
        argv.append(f"--volume={downloads}:/root/.cache")
        run([*argv, *arguments(image, os.environ.get("BASE") or self._base())], quiet=True)
        # What builds that were cut short have left, and the image that had this name before.
        run([*self._command, "rm", "--all"], quiet=True)
        run([*self._command, "rmi", "--prune"], quiet=True)

    def built_from(self, image: Image) -> str:
        """The inputs of the image as it is in the store; empty when there is none."""
        argv = [*self._command, "inspect", "--type=image", image.name]
        answer = subprocess.run(argv, capture_output=True, text=True, check=False)
        if answer.returncode:
            return ""
        labels: dict[str, str] = json.loads(answer.stdout)["OCIv1"]["config"].get("Labels", {})
        return labels.get(INPUTS_LABEL, "")

    def layers_mb(self, image: Image) -> float | None:
        """Size of what lies above the base."""
        base = os.environ.get("BASE") or self._base()
        return (self._size(image.name) - self._size(base)) / 1e6

    def save(self, image: Image, archive: Path) -> None:
        run(
            [*self._command, "push", "--quiet", image.name, f"docker-archive:{archive}:{image.name}"],
            quiet=True,
        )

    def _size(self, name: str) -> int:
        """Bytes of an image's files, counted in a mounted container."""
        container = run([*self._command, "from", "--pull-never", name])
        try:
            root = run([*self._command, "mount", container])
            return int(run(["du", "--summarize", "--bytes", "--one-file-system", root]).split()[0])
        finally:
            run([*self._command, "rm", container])

    def _base(self) -> str:
        """An image with Debian's Python, made once for each version of the recipe."""
        recipe = ["--variant=minbase", "--include=python3,python3-venv,ca-certificates", "bookworm"]
        name = f"localhost/sn17/base:{hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]}"
        if name in run([*self._command, "images", "--format={{.Name}}:{{.Tag}}"]).split():
            return name
        if shutil.which("debootstrap") is None:
            raise BuildError(
                "debootstrap, which makes the base image, is not installed:"
                " run dev/cluster/install-debian.sh as root, or name an image with Python in BASE"
            )
        print("base: making it with debootstrap ...", flush=True)
        with tempfile.TemporaryDirectory(dir=cache()) as folder:
            run(["debootstrap", *recipe[:-1], recipe[-1], folder], quiet=True)
            for rest in (
                "var/cache/apt",
                "var/lib/apt/lists",
                "usr/share/doc",
                "usr/share/locale",
                "usr/share/man",
            ):
                shutil.rmtree(Path(folder) / rest, ignore_errors=True)
            container = run([*self._command, "from", "scratch"])
            run([*self._command, "copy", "--quiet", container, folder, "/"])
            run([*self._command, "commit", "--quiet", "--rm", container, name], quiet=True)
        return name


def engine() -> Docker | Buildah:
    """Raises BuildError when neither can work here."""
    if shutil.which("docker"):
        info = ["docker", "info"]
        if subprocess.run(info, capture_output=True, check=False, timeout=60).returncode == 0:
            return Docker()
    if shutil.which("buildah"):
        return Buildah()
    raise BuildError(
        "neither docker's daemon nor buildah is to be had: start docker, or run"
        " dev/cluster/install-debian.sh as root (package buildah)"
    )


def write_archive(builder: Docker | Buildah, image: Image) -> Path:
    """The image as an archive; written anew only when the image has changed."""
    folder = cache() / "archives"
    folder.mkdir(parents=True, exist_ok=True)
    stem = image.name.rpartition("/")[2].replace(":", "-")
    archive = folder / f"{stem}.{builder.built_from(image)}.tar"
    if not archive.exists():
        for old in folder.glob(f"{stem}.*"):
            old.unlink()
        partial = archive.with_suffix(".partial")
        builder.save(image, partial)
        partial.rename(archive)
    return archive


def build(name: str, image: Image, builder: Docker | Buildah) -> None:
    started = time.monotonic()
    if builder.built_from(image) == inputs(image):
        print(f"{name}: {image.name} is up to date", flush=True)
        return
    builder.build(image)
    size, limit = builder.layers_mb(image), MAX_LAYERS_MB.get(name, USUAL_MAX_LAYERS_MB)
    above = "" if size is None else f", {size:.0f} MB above the base"
    print(f"{name}: {image.name} in {time.monotonic() - started:.0f} s{above}", flush=True)
    if size is not None and size > limit:
        raise BuildError(f"{name} has grown beyond {limit} MB")


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the container images.")
    parser.add_argument("images", nargs="*", metavar="IMAGE", help=f"any of {', '.join(IMAGES)}")
    parser.add_argument("--archives", action="store_true", help="also write archives, and print their paths")
    parser.add_argument("--name", action="store_true", help="only print the images' names, and build nothing")
    parser.add_argument(
        "--tag",
        default=os.environ.get("TAG") or "",
        help="their tag; `release` is the version; default: $TAG, else as release.py tag",
    )
    args = parser.parse_args()
    if unknown := sorted(set(args.images) - set(IMAGES)):
        parser.error(f"no such image: {', '.join(unknown)}")
    tag = VERSION if args.tag == "release" else args.tag or release.image_tag()
    if not TAG_FORM.fullmatch(tag):
        parser.error(f"{tag!r} is no tag: letters, digits, '_', '.' and '-', at most 100")
    wanted = {name: Image(tag, *IMAGES[name]) for name in args.images or DEFAULT}
    if args.name:
        print("\n".join(image.name for image in wanted.values()))
        return 0
    try:
        cache().mkdir(parents=True, exist_ok=True)
        with open(cache() / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            builder = engine()
            for name, image in wanted.items():
                build(name, image, builder)
                if args.archives:
                    print(write_archive(builder, image), flush=True)
    except BuildError as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
