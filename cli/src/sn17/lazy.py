"""Sub-commands whose modules are imported when they are called, and not to list them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sn17.console import say
from sn17.exits import explain
from sn17.given import guarded


@dataclass(frozen=True, slots=True)
class Entry:
    """``function`` of ``module``, or its Typer app; with ``part`` only the app's command of this name."""

    module: str
    help: str
    function: str = "app"
    part: bool = False

    def load(self, name: str) -> Any:
        """The command itself; imports all that it needs."""
        found = getattr(importlib.import_module(self.module), self.function)
        if not isinstance(found, typer.Typer):
            app = typer.Typer(add_completion=False)
            app.command(name=name)(found)
            return guarded(explain(typer.main.get_command(app), name), name)
        group: Any = typer.main.get_command(found)
        return guarded(explain(group.commands[name] if self.part else group, name), name)


def lazy_app(entries: Mapping[str, Entry], **options: Any) -> typer.Typer:
    """An app that knows of its commands no more than name and help until one is called."""

    class Group(TyperGroup):
        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            name, command, rest = super().resolve_command(ctx, args)
            entry = entries.get(name or "")
            return name, command if entry is None else entry.load(name or ""), rest

    app = typer.Typer(cls=Group, context_settings={"help_option_names": ["-h", "--help"]}, **options)
    for name, entry in entries.items():
        app.command(name, help=entry.help)(_nothing)

    @app.callback()
    def _root(
        version: Annotated[
            bool,
            typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_version),
        ] = False,
    ) -> None:
        """Sub-commands even if there were only one."""

    return app


def _version(asked: bool) -> None:
    if asked:
        from sn17.version import version_text

        say(version_text())
        raise typer.Exit


def _nothing() -> None:
    """Replaces a command in the list of them."""
