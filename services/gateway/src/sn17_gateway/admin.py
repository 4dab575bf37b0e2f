"""Keys on the ops port, behind the admin token: made, listed, revoked."""

from __future__ import annotations

from fastapi import APIRouter
from sn17_contract.gateway import KEYS_PATH, CreatedKey, KeyKind, KeyState, NewKey
from sn17_contract.http import Code
from sn17_service.problems import Problem

from sn17_gateway.gateway import Gateway
from sn17_gateway.keys import BadTag, Key, clean_tags


def _state(key: Key) -> KeyState:
    return KeyState(
        id=key.id, name=key.name, kind=key.kind, concurrent=key.concurrent, daily=key.daily,
        tags=sorted(key.tags), created_at=key.created_at, revoked_at=key.revoked_at,
    )  # fmt: skip


def keys_router(gateway: Gateway) -> APIRouter:
    """``/admin/v1/keys``."""
    router = APIRouter(prefix=KEYS_PATH)

    @router.post("", status_code=201)
    async def create(body: NewKey) -> CreatedKey:
        if body.kind is KeyKind.GENERIC:
            raise Problem(Code.BAD_REQUEST, "the generic key is a setting: SN17_GENERIC_KEY")
        try:
            tags = clean_tags(body.tags)
        except BadTag as error:
            raise Problem(Code.BAD_REQUEST, str(error)) from None
        key, text = await gateway.on_data_loop(
            gateway.keys.create(
                name=body.name,
                kind=body.kind,
                concurrent=body.concurrent,
                daily=body.daily,
                tags=tags,
                now=gateway.clock(),
            )
        )
        gateway.service.log.info("key made", extra={"key_id": key.id, "key_name": key.name})
        return CreatedKey(key=text, state=_state(key))

    @router.get("")
    async def list_keys() -> list[KeyState]:
        return [_state(key) for key in await gateway.on_data_loop(gateway.keys.list())]

    @router.delete("/{key_id}")
    async def revoke(key_id: str) -> KeyState:
        key = await gateway.on_data_loop(gateway.keys.revoke(key_id, gateway.clock()))
        if key is None:
            raise Problem(Code.NOT_FOUND, "no key has this id: `sn17 gateway key list` shows all")
        gateway.service.log.info("key revoked", extra={"key_id": key.id, "key_name": key.name})
        return _state(key)

    return router
