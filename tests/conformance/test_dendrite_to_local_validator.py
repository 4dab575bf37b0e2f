"""The real Dendrite calls our local validator."""

import time

import aiohttp
import numpy as np
import pytest
import real
import splat_maker
from sn17_protocol.signing import sign_result


def target(network):
    return real.axon_info(network.validator["hotkey"], network.validator["port"])


async def call(network, keypair, synapse, timeout=12.0):
    async with real.dendrite_of(keypair) as dendrite:
        return await dendrite.call(target(network), synapse, timeout=timeout, deserialize=False)


async def pulled(network, keypair):
    answer = await call(network, keypair, real.PullTask())
    assert answer.is_success, answer.dendrite.status_message
    assert answer.task is not None
    return answer.task


def result(network, keypair, task, payload, **changes):
    submit_time = time.time_ns()
    signature = sign_result(
        keypair,
        submit_time=submit_time,
        prompt=task.prompt,
        validator_hotkey=network.validator["hotkey"],
    )
    fields = {
        "task_id": task.id,
        "results": payload,
        "submit_time": submit_time,
        "signature": signature,
    } | changes
    return real.SubmitResults(**fields)


async def raw(network, keypair, synapse, change):
    """Send what the Dendrite would send, with its headers changed on the way."""
    async with real.dendrite_of(keypair) as dendrite, aiohttp.ClientSession() as session:
        prepared = dendrite.preprocess_synapse_for_request(target(network), synapse, 12.0)
        headers = change(prepared.to_headers())
        url = f"{network.validator['url']}/{type(synapse).__name__}"
        async with session.post(url, headers=headers, json=prepared.model_dump()) as response:
            return response.status, await response.json(content_type=None), headers, prepared


async def test_pull_gives_a_task_and_the_same_again(any_network):
    keypair = any_network.new_miner()
    answer = await call(any_network, keypair, real.PullTask())
    assert answer.dendrite.status_code == 200
    assert answer.dendrite.status_message == "Success"
    assert answer.task.type == "text"
    assert answer.validation_threshold == 0.6
    assert answer.throttle_period == 30
    assert answer.cooldown_until == 0
    assert (await pulled(any_network, keypair)).id == answer.task.id


async def test_a_true_result_is_accepted(any_network):
    keypair = any_network.new_miner()
    task = await pulled(any_network, keypair)
    splats = splat_maker.surface_splats(task.prompt, np.random.default_rng(0))
    answer = await call(
        any_network, keypair, result(any_network, keypair, task, splat_maker.results(splats)), timeout=60
    )
    assert answer.is_success, answer.dendrite.status_message
    assert answer.feedback.task_fidelity_score >= 0.6
    assert answer.feedback.generations_within_the_window == 1
    assert answer.feedback.current_miner_reward == 1500.0
    assert (answer.results, answer.signature) == ("", "")
    now = time.time()
    assert now + 260 < answer.cooldown_until < now + 305
    cooling = await call(any_network, keypair, real.PullTask())
    assert cooling.task is None
    assert cooling.cooldown_until == answer.cooldown_until
    # The submission took one off, the pull put one on.
    assert cooling.cooldown_violations == 0


async def test_a_wrong_result_signature_costs_the_penalty(any_network):
    keypair = any_network.new_miner()
    task = await pulled(any_network, keypair)
    stranger = any_network.new_miner()
    forged = result(any_network, stranger, task, "AAAA")
    answer = await call(any_network, keypair, forged)
    assert answer.is_success
    assert answer.feedback.task_fidelity_score == 0.0
    assert answer.feedback.validation_failed is False
    assert answer.cooldown_until > time.time() + 860


async def test_a_malformed_result_signature_is_a_server_error_and_costs_nothing(any_network):
    keypair = any_network.new_miner()
    task = await pulled(any_network, keypair)
    for signature in ("!!", "c2hvcnQ="):
        answer = await call(
            any_network, keypair, result(any_network, keypair, task, "AAAA", signature=signature)
        )
        assert answer.dendrite.status_code == 500
        assert answer.feedback is None
    assert (await pulled(any_network, keypair)).id == task.id


async def test_an_empty_result_is_free(any_network):
    keypair = any_network.new_miner()
    task = await pulled(any_network, keypair)
    answer = await call(any_network, keypair, result(any_network, keypair, task, ""))
    assert answer.is_success
    assert answer.cooldown_until <= time.time() + 301


async def test_a_submission_without_a_task_is_forbidden(any_network):
    keypair = any_network.new_miner()
    task = real.TextTask(id="none", prompt="a red cube")
    answer = await call(any_network, keypair, result(any_network, keypair, task, "AAAA"))
    assert answer.is_blacklist
    assert "no task assigned" in answer.dendrite.status_message


async def test_get_version_is_for_stakers(any_network):
    answer = await call(any_network, any_network.new_miner(), real.GetVersion())
    assert answer.is_blacklist


async def test_a_replayed_call_is_refused(any_network):
    keypair = any_network.new_miner()
    status, _, headers, prepared = await raw(any_network, keypair, real.PullTask(), lambda h: h)
    assert status == 200
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{any_network.validator['url']}/PullTask", headers=headers, json=prepared.model_dump()
        ) as response,
    ):
        assert response.status == 401
        assert "newer one" in (await response.json())["message"]


@pytest.mark.parametrize(("age", "status"), [(15, 200), (17, 401), (-3600, 200)])
async def test_old_nonces_are_refused_and_future_ones_are_not(any_network, age, status):
    keypair = any_network.new_miner()

    def change(headers):
        nonce = int(headers["bt_header_dendrite_nonce"]) - age * 1_000_000_000
        text = ".".join(
            [
                str(nonce),
                keypair.ss58_address,
                any_network.validator["hotkey"],
                headers["bt_header_dendrite_uuid"],
                headers["computed_body_hash"],
            ]
        )
        return headers | {
            "bt_header_dendrite_nonce": str(nonce),
            "bt_header_dendrite_signature": f"0x{keypair.sign(text).hex()}",
        }

    got, body, *_ = await raw(any_network, keypair, real.PullTask(), change)
    assert got == status
    if status == 401:
        assert "acceptable delta is 16.00 seconds" in body["message"]


async def test_a_tampered_hotkey_is_refused(any_network):
    keypair, other = any_network.new_miner(), any_network.new_miner()
    status, *_ = await raw(
        any_network,
        keypair,
        real.PullTask(),
        lambda h: h | {"bt_header_dendrite_hotkey": other.ss58_address},
    )
    assert status == 401


async def test_the_body_decides_in_whose_name_a_task_is_pulled(any_network):
    """Odd, and so on the real network: a registered stranger takes a task for a miner who never asked."""
    stranger, miner = any_network.new_miner(), any_network.new_miner()
    async with real.dendrite_of(stranger) as dendrite, aiohttp.ClientSession() as session:
        prepared = dendrite.preprocess_synapse_for_request(target(any_network), real.PullTask(), 12.0)
        body = prepared.model_dump()
        body["dendrite"]["hotkey"] = miner.ss58_address
        url = f"{any_network.validator['url']}/PullTask"
        async with session.post(url, headers=prepared.to_headers(), json=body) as response:
            stolen = (await response.json())["task"]["id"]
    assert (await pulled(any_network, miner)).id == stolen


async def test_an_unregistered_caller_is_told_to_wait(any_network):
    answer = await call(
        any_network, real.bittensor_wallet.Keypair.create_from_uri("//Nobody"), real.PullTask()
    )
    assert answer.is_success
    assert answer.task is None
    assert answer.cooldown_until > time.time() + 3500
