"""Puts a miner together from its settings."""

from __future__ import annotations

import os
import random
import ssl
import time
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path

import aiohttp
from bittensor_wallet import Keypair
from sn17_contract.tasks import VALIDATORS
from sn17_protocol.wallet import WalletError, load_hotkey
from sn17_service import Service

from sn17_miner import lock, ops
from sn17_miner.asset_route import asset_routes
from sn17_miner.chain.feed import ChainFeed
from sn17_miner.chain.sdk import SdkSource
from sn17_miner.chain.source import ChainSource, FileSource, HttpSource
from sn17_miner.clients.axon import AxonClient
from sn17_miner.clients.fixer import FixerClient
from sn17_miner.clients.gateway import Account, GatewayClient
from sn17_miner.clients.leave_alone import LeaveAloneHeader, until_next_pull
from sn17_miner.clients.scorer import ScorerClient
from sn17_miner.clients.web import new_session
from sn17_miner.clients.worker import WorkerClient
from sn17_miner.context import Context
from sn17_miner.core.doors import Doors
from sn17_miner.core.fleet import Fleet
from sn17_miner.core.nodes import Nodes
from sn17_miner.core.scheduler import Scheduler
from sn17_miner.core.sharing import Sharing
from sn17_miner.delivery import Delivery
from sn17_miner.gateways import Gateways
from sn17_miner.gauges import gauges
from sn17_miner.journal.journal import Journal
from sn17_miner.journal.reader import JournalError
from sn17_miner.journal.thread import JournalThread
from sn17_miner.kept import FOLDER, KeptAssets
from sn17_miner.metrics import Gauges, MinerMetrics
from sn17_miner.miner import Limits, Miner
from sn17_miner.pipeline import Pipeline
from sn17_miner.pool import Discovery, Pool, by_dns, fixed
from sn17_miner.prompts import Enhancer
from sn17_miner.settings import MinerSettings
from sn17_miner.spool import Spool

JOURNAL = "journal.sqlite"
_MAX_SPZ = 300 * 1024 * 1024


def serve(settings: MinerSettings) -> int:
    """Run until stopped; the exit code."""
    service = Service("miner", version("sn17-miner"), settings)
    try:
        keypair = hotkey_of(settings)
        accounts = accounts_of(settings, keypair)
    except (WalletError, OSError) as error:
        service.log.error("%s", error)
        return 2
    try:
        lock.acquire(settings.state_dir / "miner.lock")
        journal = Journal(settings.state_dir / JOURNAL)
    except JournalError as error:
        service.log.error("the journal cannot be opened: %s", error)
        return 1
    except lock.LockError as error:
        service.log.error("the state folder %s cannot be used: %s", settings.state_dir, error)
        return 1
    except OSError as error:
        service.log.error(
            "the state folder cannot be used: %s; give user %d room and the right to write there,"
            " or set SN17_STATE_DIR to another one",
            error,
            os.getuid(),
        )
        return 1
    handle = ops.MinerHandle(settings.state_dir / JOURNAL)
    kept = kept_assets(settings)
    service.add_ops_router(ops.routes(handle, kept), admin=True)
    service.add_ops_router(asset_routes(handle, kept), admin=True)
    service.background("miner", lambda: _mine(service, settings, keypair, journal, handle, accounts))
    service.log.info("miner starts", extra={"hotkey": keypair.ss58_address, "netuid": settings.netuid})
    return service.main(None)


def hotkey_of(settings: MinerSettings) -> Keypair:
    """The key to sign with. Raises WalletError for a coldkey, a damaged file or another address."""
    keypair = load_hotkey(settings.hotkey_file)
    if settings.hotkey_address not in (None, keypair.ss58_address):
        raise WalletError(
            f"the hotkey file is of {keypair.ss58_address},"
            f" SN17_HOTKEY_ADDRESS says {settings.hotkey_address}"
        )
    return keypair


async def _mine(
    service: Service,
    settings: MinerSettings,
    keypair: Keypair,
    opened: Journal,
    handle: ops.MinerHandle,
    accounts: dict[str, Account],
) -> None:
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(new_session())
        journal = JournalThread(opened)
        stack.callback(journal.close)
        source = chain_source(settings, session)
        stack.push_async_callback(source.close)
        miner = handle.miner = build(service, settings, keypair, session, journal, source, accounts)
        service.on_stop.append(miner.finish_running)
        await miner.run()


def _context(
    settings: MinerSettings,
    keypair: Keypair,
    session: aiohttp.ClientSession,
    journal: JournalThread,
    rng: random.Random,
    metrics: MinerMetrics,
) -> Context:
    """What all parts of the miner share: clients, journal, spool and clocks."""
    policy, gate = settings.policy(), settings.gate
    scheduler = Scheduler(
        policy,
        rng,
        keypair.ss58_address,
        quarantine=frozenset(settings.quarantine),
        always=frozenset(settings.always),
    )

    def expected() -> float | None:
        # A gateway may have a task at any moment.
        return None if settings.gateways else until_next_pull(scheduler.lanes.values(), time.time())

    workers = WorkerClient(
        session,
        timeout=settings.generate_timeout_seconds,
        poll_timeout=max(2.0, settings.worker_poll_seconds),
        max_bytes=settings.max_splat_bytes,
        poll_headers=LeaveAloneHeader(settings.admin_token_file, keypair.ss58_address, expected, time.time),
    )
    return Context(
        policy=policy,
        keypair=keypair,
        scheduler=scheduler,
        journal=journal,
        spool=Spool(settings.state_dir / "spool", settings.spool_max_bytes, settings.disk_min_free_bytes),
        pool=_pool(settings, workers),
        workers=workers,
        fixer=FixerClient(
            session,
            settings.fixer_url,
            policy=settings.fixer_policy,
            timeout=settings.fix_timeout_seconds,
            max_bytes=_MAX_SPZ,
        ),
        axon=AxonClient(
            session,
            keypair,
            pull_timeout=settings.pull_timeout_seconds,
            submit_timeout=settings.submit_timeout_seconds,
            clock_ns=time.time_ns,
        ),
        metrics=metrics,
        clock=time.time,
        monotonic=time.monotonic,
        clock_ns=time.time_ns,
        started_at=time.time(),
        fast_lane=settings.fast_lane,
        scorer=ScorerClient(session, gate.scorer_url.rstrip("/"), timeout=gate.scorer_timeout_seconds)
        if gate.scorer_url
        else None,
        kept=kept_assets(settings),
    )


def build(
    service: Service,
    settings: MinerSettings,
    keypair: Keypair,
    session: aiohttp.ClientSession,
    journal: JournalThread,
    source: ChainSource,
    accounts: dict[str, Account] | None = None,
) -> Miner:
    """Wire the parts together and to the service's probes, routes and metrics."""
    rng = random.Random()
    accounts = accounts_of(settings, keypair) if accounts is None else accounts
    weights = {VALIDATORS: settings.validators_weight} | {g.name: g.weight for g in settings.gateways}
    context = _context(settings, keypair, session, journal, rng, MinerMetrics(service.registry, weights))
    scheduler, pool = context.scheduler, context.pool
    enhance = settings.enhance
    enhancer = Enhancer(
        frozenset(enhance.text_validators), frozenset(enhance.image_validators), enhance.text_template
    )
    feed = _feed(settings, source, rng)

    def paused() -> str | None:
        lease = service.drain.current
        return f"draining for {lease.by.value}: {lease.reason}" if lease else None

    gateways = _gateways(settings, context, session, accounts)
    miner = Miner(
        context,
        Pipeline(context, enhancer, Delivery(context, gateways.client, accounts)),
        feed,
        gateways,
        Doors(scheduler, gateways.nodes, Sharing(weights)),
        _limits(settings),
        paused,
        lambda: service.stop(0, f"{settings.max_tasks} tasks done"),
    )
    pool.changed = context.wake = miner.wake
    feed.on_snapshot = miner.on_snapshot
    service.readiness.add("chain", lambda: (feed.snapshot is not None, feed.error or ""))
    gateways.start, gateways.counted, gateways.returned = (
        miner.start,
        miner.count,
        miner.doors.sharing.returned,
    )
    service.readiness.add("pulling", lambda: (miner.why_idle is None, miner.why_idle or ""))
    service.registry.register(Gauges(lambda: gauges(miner)))
    return miner


def accounts_of(settings: MinerSettings, keypair: Keypair) -> dict[str, Account]:
    """In whose name each gateway is asked. Raises WalletError, OSError or ssl.SSLError for unusable files."""
    return {
        gateway.name: Account(
            keypair if gateway.hotkey_file is None else load_hotkey(gateway.hotkey_file),
            gateway.worker_id,
            None if gateway.ca_file is None else ssl.create_default_context(cafile=gateway.ca_file),
        )
        for gateway in settings.gateways
    }


def _gateways(
    settings: MinerSettings, context: Context, session: aiohttp.ClientSession, accounts: dict[str, Account]
) -> Gateways:
    sources = {gateway.name: gateway.source() for gateway in settings.gateways}
    client = GatewayClient(
        session,
        context.clock,
        pull_timeout=settings.gateway_pull_timeout_seconds,
        submit_timeout=settings.submit_timeout_seconds,
    )
    nodes = Nodes({door: source.pause for door, source in sources.items()}, context.scheduler.rng)
    return Gateways(context, client, sources, accounts, nodes)


def kept_assets(settings: MinerSettings) -> KeptAssets:
    """Where submitted assets stay for a while."""
    return KeptAssets(
        settings.state_dir / FOLDER,
        settings.keep_assets,
        settings.keep_assets_max_bytes,
        settings.disk_min_free_bytes,
    )


def _pool(settings: MinerSettings, workers: WorkerClient) -> Pool:
    return Pool(
        Fleet(stale_after=max(5.0, 4 * settings.worker_poll_seconds)),
        workers,
        discovery(settings),
        time.monotonic,
        settings.worker_poll_seconds,
        settings.worker_discover_seconds,
    )


def _feed(settings: MinerSettings, source: ChainSource, rng: random.Random) -> ChainFeed:
    return ChainFeed(
        source,
        settings.state_dir / "snapshot.json",
        settings.netuid,
        settings.chain.interval_seconds,
        time.time,
        rng,
    )


def _limits(settings: MinerSettings) -> Limits:
    return Limits(
        settings.max_tasks,
        settings.keep_days * 86400.0,
        settings.keep_tasks,
        settings.clock_skew_alarm_seconds,
        settings.scale_ahead_seconds,
    )


def chain_source(settings: MinerSettings, session: aiohttp.ClientSession) -> ChainSource:
    """The configured source of chain snapshots."""
    chain = settings.chain
    if chain.source == "http":
        return HttpSource(session, chain.url or "", settings.netuid, deadline=chain.deadline_seconds)
    if chain.source == "file":
        return FileSource(chain.path or Path(), settings.netuid)
    return SdkSource(chain.endpoint, settings.netuid, deadline=chain.deadline_seconds)


def discovery(settings: MinerSettings) -> Discovery:
    """The configured way to find workers."""
    if settings.workers_dns:
        name, _, port = settings.workers_dns.rpartition(":")
        return by_dns(name, int(port))
    return fixed(settings.workers)
