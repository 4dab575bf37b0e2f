"""``python -m sn17_devnet`` as its users see it."""

import base64
import json
import os
import random
import subprocess
import sys
import time

import numpy as np
import pytest
import splat_maker
from bittensor_wallet import Keypair
from devnet_process import Devnet, mode, mutations
from sn17_devnet.network import Network
from sn17_devnet.picture import render_front
from sn17_devnet.settings import DevnetSettings
from sn17_http import own_client
from sn17_protocol import ChainSnapshot, PullTask
from sn17_protocol.transport import TransportError
from sn17_splats import write_ply


@pytest.fixture(scope="module")
def devnet(tmp_path_factory):
    with Devnet(
        tmp_path_factory.mktemp("devnet"), SN17_TIME_SCALE="0.01", SN17_IMAGE_RATIO="0.5", SN17_SEED="3"
    ) as running:
        yield running
        assert running.stop() == 0


def wait_until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
    return found


def pull_when_allowed(devnet, index=0, keypair=None):
    return wait_until(lambda: devnet.pull(index, keypair).task)


def scene_of(devnet, task, index=0):
    return next(each["scene"] for each in devnet.ledger(index)["tasks"] if each["task_id"] == task.id)


def true_results(scene):
    return splat_maker.results(splat_maker.surface_splats(scene, np.random.default_rng(0), limit=60_000))


def test_the_snapshot_lists_validators_and_the_miner(devnet):
    snapshot = ChainSnapshot.model_validate(devnet.get("/snapshot"))
    assert snapshot.netuid == 17
    assert [n.hotkey for n in snapshot.validators()] == [v["hotkey"] for v in devnet.validators]
    miner = snapshot.neuron(devnet.keypair.ss58_address)
    assert miner is not None
    assert (miner.serving, miner.uid) == (False, 2)
    assert miner.immune_blocks_left > 0


def test_wallets_are_private(devnet):
    assert mode(devnet.state / "miner_hotkey.json") == 0o600
    assert mode(devnet.state / "validator-0" / "hotkey.json") == 0o600


@pytest.mark.parametrize("index", [0, 1])
def test_true_results_are_accepted_and_the_books_say_so(devnet, index):
    task = pull_when_allowed(devnet, index)
    answer = devnet.submit(task, true_results(scene_of(devnet, task, index)), index)
    assert answer.feedback.task_fidelity_score >= 0.6
    record = next(each for each in devnet.ledger(index)["tasks"] if each["task_id"] == task.id)
    assert record["outcome"] == "accepted"
    assert record["score"] == pytest.approx(answer.feedback.task_fidelity_score)
    assert record["delivery_seconds"] > 0
    miner = ChainSnapshot.model_validate(devnet.get("/snapshot")).neuron(devnet.keypair.ss58_address)
    assert miner.incentive == 1.0


def test_false_results_are_rejected(devnet):
    task = pull_when_allowed(devnet)
    answer = devnet.submit(task, true_results("three black crosses on a pink table"))
    assert answer.feedback.task_fidelity_score == 0.0
    assert devnet.ledger()["outcomes"]["rejected"] >= 1


def test_faults_come_and_go(devnet):
    rule = {"kind": "status", "status": 503, "validator": 1}
    assert devnet.http.put(f"{devnet.url}/faults", json=[rule]).status_code == 200
    with pytest.raises(TransportError) as caught:
        devnet.pull(1)
    assert caught.value.status == 503
    assert devnet.get("/faults")[0]["validator"] == 1
    devnet.http.put(f"{devnet.url}/faults", json=[]).raise_for_status()
    devnet.pull(1)


def test_a_rule_that_makes_no_sense_is_refused(devnet):
    answer = devnet.http.put(f"{devnet.url}/faults", json=[{"kind": "status", "status": 200}])
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "bad_request"


def test_a_validator_restarts_on_request(devnet):
    before = devnet.ledger(1)["restarts"]
    devnet.http.post(f"{devnet.url}/validators/1/restart", json={"seconds": 0.05}).raise_for_status()
    wait_until(lambda: devnet.ledger(1)["restarts"] == before + 1 and devnet.ledger(1)["up"])
    devnet.pull(1)
    assert devnet.http.post(f"{devnet.url}/validators/9/restart", json={}).status_code == 404


def test_a_newcomer_is_served_after_the_next_sync(devnet):
    newcomer = Keypair.create_from_uri("//Newcomer")
    registered = devnet.http.post(f"{devnet.url}/miners", json={"hotkey": newcomer.ss58_address})
    assert registered.status_code == 201
    assert devnet.http.post(f"{devnet.url}/miners", json={"hotkey": newcomer.ss58_address}).status_code == 409
    assert devnet.http.post(f"{devnet.url}/miners", json={"hotkey": "nobody"}).status_code == 409
    assert pull_when_allowed(devnet, keypair=newcomer).id
    assert devnet.http.delete(f"{devnet.url}/miners/{newcomer.ss58_address}").status_code == 204
    assert devnet.http.delete(f"{devnet.url}/miners/{newcomer.ss58_address}").status_code == 404
    wait_until(lambda: devnet.pull(keypair=newcomer).cooldown_until > time.time() + 20)


def validate(devnet, path, **fields):
    return devnet.http.post(f"{devnet.url}{path}", json=fields)


def test_the_validation_service_scores_as_the_validators_do(devnet):
    splats = splat_maker.surface_splats("a red cube", np.random.default_rng(0), limit=60_000)
    spz, ply = splat_maker.results(splats), base64.b64encode(write_ply(splats)).decode()
    text = "/validate_txt_to_3d_ply/"
    good = validate(devnet, text, prompt="a red cube", data=spz, compression=2).json()
    assert good["score"] >= 0.6
    assert set(good) >= {"score", "iqa", "alignment_score", "ssim", "lpips", "preview", "grid_preview"}
    assert validate(devnet, text, prompt="a red cube", data=ply).json()["score"] >= 0.6
    assert validate(devnet, text, prompt="a blue cube", data=spz, compression=2).json()["score"] < 0.6
    assert validate(devnet, text, prompt="a red cube", data="!").json()["score"] == 0.0
    picture = base64.b64encode(render_front("a red cube")).decode()
    image = "/validate_img_to_3d_ply/"
    assert validate(devnet, image, prompt_image=picture, data=spz, compression=2).json()["score"] >= 0.6
    assert validate(devnet, image, prompt_image="AAAA", data=spz, compression=2).json()["score"] == 0.0
    assert validate(devnet, text, prompt="x" * 1025, data=spz).status_code == 422


@pytest.mark.parametrize("calls", [400, pytest.param(20_000, marks=pytest.mark.slow)])
def test_spoilt_calls_never_stop_a_validator_or_fill_its_memory(devnet, calls):
    rng = random.Random(11)
    base = devnet.resident_bytes()
    statuses = set()
    request = devnet.request(PullTask())
    with own_client(timeout=30) as client:
        for number in range(calls):
            if number % 50 == 0:
                request = devnet.request(PullTask())
            headers, body = mutations(request, rng)
            headers.pop("Content-Length", None)
            answer = client.post(devnet.validators[0]["url"] + request.path, headers=headers, content=body)
            statuses.add(answer.status_code)
    assert statuses <= {200, 400, 401, 403, 404, 422, 500}, statuses
    assert len(statuses) >= 3
    assert devnet.process.poll() is None
    devnet.pull()
    assert devnet.resident_bytes() < base + 64 * 1024**2


def test_a_second_start_finds_its_wallets_and_books(tmp_path):
    with Devnet(tmp_path, SN17_VALIDATORS="1", SN17_TIME_SCALE="0.002") as first:
        task = first.pull().task
        # Saved at a sync, every 1.2 seconds here.
        state = first.state / "validator-0" / "state.json"
        wait_until(lambda: task.id in state.read_text())
        assert first.stop() == 0
    with Devnet(tmp_path, SN17_VALIDATORS="1", SN17_TIME_SCALE="0.002") as second:
        assert second.validators[0]["hotkey"] == first.validators[0]["hotkey"]
        assert second.pull().task == task
        assert second.stop() == 0


def test_given_miners_and_ports_are_used(tmp_path):
    miner = Keypair.create_from_uri("//Given")
    with Devnet(
        tmp_path, SN17_MINER_HOTKEYS=json.dumps([miner.ss58_address]), SN17_ADVERTISE_IP="127.0.0.1"
    ) as own:
        assert own.info["miners"] == [miner.ss58_address]
        assert not (own.state / "miner_hotkey.json").exists()
        assert own.pull(keypair=miner).task is not None


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "sn17_devnet", *arguments],
        env=os.environ | environment,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )


def test_readiness_says_when_the_validators_listen(devnet):
    assert devnet.http.get(f"{devnet.info['ops_url']}/ready").json() == {"ready": True, "reasons": {}}


@pytest.mark.parametrize(
    ("host", "advertised", "ip"),
    [
        ("0.0.0.0", None, "127.0.0.1"),
        ("any", None, "127.0.0.1"),
        ("::", None, "127.0.0.1"),
        ("0.0.0.0", "10.1.2.3", "10.1.2.3"),
        ("127.0.0.1", None, "127.0.0.1"),
    ],
)
def test_validators_are_announced_by_an_address_that_can_be_called(tmp_path, host, advertised, ip):
    network = Network(DevnetSettings(host=host, advertise_ip=advertised, state_dir=tmp_path))
    assert {neuron.ip for neuron in network.snapshot().validators()} == {ip}
    assert network.description("", "").validators[0].ip == ip


def test_help_lists_every_setting():
    shown = run("--help").stdout
    for name in ("SN17_VALIDATORS", "SN17_TIME_SCALE", "SN17_FAULTS", "SN17_STRICTNESS", "SN17_IMAGE_RATIO"):
        assert name in shown


@pytest.mark.parametrize(
    ("name", "value"),
    [("SN17_VALIDATORS", "0"), ("SN17_TIME_SCALE", "-1"), ("SN17_FAULTS", '[{"kind":"meteor"}]')],
)
def test_a_wrong_setting_ends_with_its_name(tmp_path, name, value):
    ended = run(SN17_STATE_DIR=str(tmp_path), **{name: value})
    assert ended.returncode == 2
    assert name in ended.stderr


def test_a_miner_hotkey_that_is_none_is_refused(tmp_path):
    ended = run(SN17_STATE_DIR=str(tmp_path), SN17_MINER_HOTKEYS='["nobody"]')
    assert ended.returncode == 2
    assert "SN17_MINER_HOTKEYS" in ended.stderr
