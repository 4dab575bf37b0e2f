"""Can the images of a release be pulled?"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sn17.doctor.model import Finding, failed, not_used, ok, unknown


class Answer(StrEnum):
    """What is known of an image."""

    RUNNING = "a node has it and runs it"
    THERE = "the registry has it"
    ABSENT = "the registry has no such image"
    REFUSED = "the registry asks for a login that it did not get"
    SILENT = "the registry does not answer from here"
    PULL_FAILED = "a node cannot pull it"
    PRELOADED = "loaded into the nodes by hand, and no node has shown yet that it has it"


@dataclass(frozen=True, slots=True)
class Image:
    """A reference of a pod's template and what was found; ``detail`` in the words of node or registry."""

    reference: str
    answer: Answer
    detail: str = ""


def judge_images(found: Sequence[Image], namespace: str) -> Finding:
    if not found:
        return not_used("no images named", "give --release, or name one with --image")
    absent = [image for image in found if image.answer is Answer.ABSENT]
    if absent:
        names = " ".join(shlex.quote(image.reference) for image in absent)
        return failed(
            f"not in the registry: {', '.join(image.reference for image in absent)}",
            "build the image with `make images` and push it, or name an image and tag that are there",
            f"for image in {names}; do docker push $image; done",
        )
    broken = [image for image in found if image.answer is Answer.PULL_FAILED]
    if broken:
        return failed(
            "; ".join(f"{image.reference}: {image.detail or image.answer.value}" for image in broken),
            "push the image, or name a pull secret in image.pullSecrets",
        )
    refused = [image for image in found if image.answer is Answer.REFUSED]
    if refused:
        registry = refused[0].reference.partition("/")[0]
        return failed(
            f"{registry} asks for a login: {', '.join(image.reference for image in refused)}",
            "make a pull secret and name it in image.pullSecrets",
            f"kubectl create secret docker-registry sn17-pull -n {shlex.quote(namespace)} "
            f"--docker-server={registry} --docker-username=USER --docker-password=PASSWORD",
        )
    silent = [image for image in found if image.answer in (Answer.SILENT, Answer.PRELOADED)]
    if silent:
        return unknown(
            "; ".join(f"{image.reference}: {image.detail or image.answer.value}" for image in silent),
            "nodes may reach it all the same: `kubectl get pods` says ImagePullBackOff if not",
        )
    return ok(", ".join(f"{image.reference} ({image.answer.value})" for image in found))
