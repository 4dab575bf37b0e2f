"""Rights, and the definition of SN17Miner."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from sn17_contract.kubernetes import GROUP, PLURAL, VERSION

from sn17.doctor.model import Finding, failed, ok, unknown


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """``resource`` may name a subresource, as in ``pods/proxy``; ``name``: of one object, empty for all."""

    verb: str
    resource: str
    group: str = ""
    name: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource} {self.name}".rstrip()

    @property
    def qualified(self) -> str:
        """As kubectl writes a resource: ``sn17miners.sn17.io``, ``deployments.apps``, ``pods/proxy``."""
        name, slash, sub = self.resource.partition("/")
        return f"{name}{'.' + self.group if self.group else ''}{slash}{sub}"


NEEDED_BY_PEOPLE: Final = (
    Right("get", "pods"),
    Right("list", "pods"),
    Right("patch", "pods"),
    Right("get", "pods/proxy"),
    Right("create", "pods/portforward"),
    Right("list", PLURAL, GROUP),
    Right("patch", PLURAL, GROUP),
)
"""What status, cordon, recycle, pause, explain, accept and watch do, whatever the release."""

NEEDED_BY_OPERATOR: Final = (
    *(Right(verb, PLURAL, GROUP) for verb in ("get", "list", "watch")),
    *(Right(verb, f"{PLURAL}/status", GROUP) for verb in ("get", "patch")),
    *(Right(verb, "pods") for verb in ("get", "list", "watch", "patch")),
    Right("create", "pods/eviction"),
    *(Right(verb, "events") for verb in ("list", "create")),
    Right("get", "deployments", "apps"),
    Right("create", "leases", "coordination.k8s.io"),
)
"""What the chart's Role gives it, but for its own Lease and what an option adds."""


def needed_by_people(admin_secret: str | None) -> tuple[Right, ...]:
    """``admin_secret``: the Secret that accept, watch and tasks read of a release, None without one."""
    if admin_secret is None:
        return NEEDED_BY_PEOPLE
    return (
        *NEEDED_BY_PEOPLE,
        Right("list", "statefulsets", "apps"),
        Right("list", "configmaps"),
        Right("get", "secrets", name=admin_secret),
    )


def needed_by_operator(lease: str) -> tuple[Right, ...]:
    """``lease``: the one that it holds; it may see and renew no other."""
    held = (Right(verb, "leases", "coordination.k8s.io", lease) for verb in ("get", "update"))
    return (*NEEDED_BY_OPERATOR, *held)


@dataclass(frozen=True, slots=True)
class Rights:
    """``user``: as the server knows the caller. ``operator``: its service account as a user, None where no
    release is looked at. ``operator_lacks`` is None where the server does not tell us.
    """

    server: str
    version: str
    user: str
    namespace: str
    lacks: tuple[Right, ...] = ()
    operator: str | None = None
    operator_lacks: tuple[Right, ...] | None = ()


@dataclass(frozen=True, slots=True)
class Definition:
    """The CustomResourceDefinition that the cluster has and the one this version wants; None: it has none."""

    found: Mapping[str, Any] | None
    wanted: Mapping[str, Any]


def judge_rights(found: Rights) -> Finding:
    """The remedy is for an administrator of the namespace."""
    if found.lacks:
        return failed(
            f"{found.user} may not {_listed(found.lacks)} in namespace {found.namespace}",
            "an administrator of the cluster gives the rights",
            _grant("sn17-steering", found.lacks, f"--user={shlex.quote(found.user)}", found.namespace),
        )
    if found.operator and found.operator_lacks:
        _, _, namespace, name = found.operator.split(":")
        return failed(
            f"the operator ({name}) may not {_listed(found.operator_lacks)}",
            "`helm upgrade` of the release brings its Role back; an administrator can give the rights",
            _grant(
                f"{name}-more", found.operator_lacks, f"--serviceaccount={namespace}:{name}", found.namespace
            ),
        )
    said = f"{found.user} at {found.server} ({found.version}), namespace {found.namespace}"
    if found.operator and found.operator_lacks is None:
        return unknown(
            f"{said}: may do what the commands need; the operator's rights cannot be asked for",
            "ask with an administrator's kubeconfig",
        )
    return ok(said)


def _listed(rights: Sequence[Right]) -> str:
    return ", ".join(str(right) for right in rights)


def _grant(name: str, rights: Iterable[Right], subject: str, namespace: str) -> str:
    """A role for each set of resources that lack the same verbs, so that nothing more is given."""
    in_namespace = f"-n {shlex.quote(namespace)}"
    verbs: dict[tuple[str, str], list[str]] = {}
    for right in rights:
        verbs.setdefault((right.name, right.qualified), []).append(right.verb)
    by_verbs = sorted((",".join(sorted(found)), *target) for target, found in verbs.items())
    commands: list[str] = []
    for number, ((found, only), group) in enumerate(groupby(by_verbs, key=lambda item: item[:2]), 1):
        role = f"{name}-{number}"
        resources = ",".join(resource for *_, resource in group)
        one = f" --resource-name={shlex.quote(only)}" if only else ""
        commands.append(
            f"kubectl create role {role} {in_namespace} --verb={found} --resource={resources}{one}"
        )
        commands.append(f"kubectl create rolebinding {role} {in_namespace} --role={role} {subject}")
    return " && ".join(commands)


def judge_definition(found: Definition, apply: str) -> Finding:
    """``apply`` is the command that applies the definition of this version."""
    name = str(found.wanted["metadata"]["name"])
    remedy = "apply the definition of this version (Helm never upgrades one)"
    if found.found is None:
        return failed(f"the cluster has no {name}", remedy, apply)
    conditions = (found.found.get("status") or {}).get("conditions") or ()
    established = any(c.get("type") == "Established" and c.get("status") == "True" for c in conditions)
    versions = {each["name"]: each for each in found.found["spec"]["versions"]}
    mine = versions.get(VERSION)
    if mine is None or not mine.get("served"):
        return failed(f"{name} does not serve {VERSION}, only {', '.join(sorted(versions))}", remedy, apply)
    wanted = found.wanted["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    has, wants = set(_fields(mine["schema"]["openAPIV3Schema"])), set(_fields(wanted))
    if has != wants:
        parts = [
            f"{word} {', '.join(sorted(names)[:5])}{' ...' if len(names) > 5 else ''}"
            for word, names in (("lacks", wants - has), ("has besides", has - wants))
            if names
        ]
        return failed(f"{name} is of another version: {'; '.join(parts)}", remedy, apply)
    if not established:
        return unknown(f"{name} is there, but the API server does not say yet that it serves it", "ask again")
    return ok(f"{name} serves {VERSION} with the fields of this version")


def _fields(schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name, child in (schema.get("properties") or {}).items():
        own = f"{path}.{name}" if path else name
        yield own
        yield from _fields(child, own)
    if items := schema.get("items"):
        yield from _fields(items, f"{path}[]")
