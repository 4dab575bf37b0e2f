"""``sn17 gateway key create|list|revoke``, through the gateway's ops port."""

from __future__ import annotations

import datetime
import json as jsonlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer
from pydantic import TypeAdapter, ValidationError
from sn17_contract.gateway import KEYS_PATH, CreatedKey, KeyKind, KeyState, NewKey
from sn17_http import client_for

from sn17.console import new_console, print_json, say
from sn17.exits import Exit
from sn17.fitted import Column, FittedTable
from sn17.given import address_of, secret_of
from sn17.options import Json, TokenFile

app = typer.Typer(
    name="gateway", help="Make, list and revoke the keys of your clients.", no_args_is_help=True
)
keys = typer.Typer(name="key", help="Keys of clients.", no_args_is_help=True)
app.add_typer(keys)

_TIMEOUT = 30.0
_NOT_FOUND = 404
_STATES: TypeAdapter[list[KeyState]] = TypeAdapter(list[KeyState])

Url = Annotated[str, typer.Option(help="The gateway's ops port; in a cluster by `kubectl port-forward`.")]
_URL = "http://127.0.0.1:9090"


@app.callback()
def _root() -> None:
    """Keep `sn17 gateway key` a sub-command while it is the only one."""


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is; for you alone.")],
    kind: Annotated[KeyKind, typer.Option(help="company: days are UTC days, failures do not count.")] = (
        KeyKind.COMPANY
    ),
    concurrent: Annotated[int, typer.Option(min=0, help="Most open tasks; 0 = no limit.")] = 0,
    daily: Annotated[int, typer.Option(min=0, help="Most tasks a day; 0 = no limit.")] = 0,
    tag: Annotated[list[str] | None, typer.Option(help="Only workers with this tag get the tasks.")] = None,
    url: Url = _URL,
    token_file: TokenFile = None,
    json: Json = False,
) -> None:
    """Make a key and print it: this once, since only its hash is kept."""
    try:
        wish = NewKey(name=name, kind=kind, concurrent=concurrent, daily=daily, tags=tag or [])
    except ValidationError as error:
        raise _stop(f"{error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}", Exit.CANNOT) from None
    made = _read(CreatedKey.model_validate, _call("POST", url, token_file, json=wish.model_dump(mode="json")))
    if json:
        print_json(made.model_dump_json())
        return
    say(f"{made.state.name}: {made.state.kind.value} key {made.state.id}", error=True)
    say(made.key)


@keys.command(name="list")
def list_keys(url: Url = _URL, token_file: TokenFile = None, json: Json = False) -> None:
    """List all keys with their limits, revoked ones included; never the keys themselves."""
    states = _read(_STATES.validate_python, _call("GET", url, token_file))
    if json:
        print_json(jsonlib.dumps([state.model_dump(mode="json") for state in states]))
        return
    new_console().print(key_table(states))


def key_table(states: Sequence[KeyState]) -> FittedTable:
    """Keys with their limits, never the keys themselves."""
    table = FittedTable(
        (
            Column("id"),
            Column("name"),
            Column("kind", rank=3),
            Column("open tasks", right=True, rank=4),
            Column("a day", right=True, rank=5),
            Column("tags", rank=2, shortens=True),
            Column("made", rank=6),
            Column("revoked", rank=1),
        )
    )
    for state in states:
        table.add_row(
            state.id, state.name, state.kind.value, _limit(state.concurrent), _limit(state.daily),
            ", ".join(state.tags), _day(state.created_at), _day(state.revoked_at),
        )  # fmt: skip
    return table


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, as the list shows it.")],
    url: Url = _URL,
    token_file: TokenFile = None,
    json: Json = False,
) -> None:
    """Revoke a key for good; tasks that it has handed in go on."""
    state = _read(KeyState.model_validate, _call("DELETE", url, token_file, f"/{key_id}"))
    if json:
        print_json(state.model_dump_json())
        return
    say(f"{state.name}: key {state.id} is revoked")


def _call(method: str, url: str, token_file: Path | None, path: str = "", **body: Any) -> httpx2.Response:
    if token_file is None:
        raise _stop(
            "give --token-file (or set SN17_ADMIN_TOKEN_FILE): the gateway's admin token", Exit.CANNOT
        )
    token, url = secret_of(token_file), address_of(url)
    try:
        with client_for(url, timeout=_TIMEOUT, headers={"authorization": f"Bearer {token}"}) as client:
            answer = client.request(method, f"{url.rstrip('/')}{KEYS_PATH}{path}", **body)
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        raise _stop(f"no gateway answers at {url}: {error}", Exit.CANNOT) from None
    if answer.is_error:
        raise _stop(_detail(answer), Exit.NO if answer.status_code == _NOT_FOUND else Exit.CANNOT)
    return answer


def _detail(answer: httpx2.Response) -> str:
    """What a refusal says, or its status where it is not the gateway's."""
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"the answer is {answer.status_code}: is this the ops port of a gateway?"


def _read(validate: Any, answer: httpx2.Response) -> Any:
    try:
        return validate(answer.json())
    except ValueError:
        raise _stop("the answer is not a gateway's: is this its ops port?", Exit.CANNOT) from None


def _stop(message: str, code: int) -> typer.Exit:
    say(f"sn17 gateway: {message}", error=True)
    return typer.Exit(code)


def _limit(number: int) -> str:
    return str(number) if number else "-"


def _day(moment: float | None) -> str:
    if moment is None:
        return "-"
    return datetime.datetime.fromtimestamp(moment, tz=datetime.UTC).strftime("%Y-%m-%d %H:%M")
