import importlib.util
import json
import os
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest
from bittensor_wallet import Keypair

HERE = Path(__file__).parent
MINERS = 64


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


real_module = load("real", HERE / "real.py")
splat_maker = load("splat_maker", HERE.parent.parent / "dev" / "devnet" / "tests" / "splat_maker.py")


def miner_key(number):
    return Keypair.create_from_uri(f"//Miner{number}")


class LocalNetwork:
    """A running ``python -m sn17_devnet`` and miners that nobody has used yet."""

    def __init__(self, info):
        self.info = info
        self.validator = info["validators"][0]
        self._numbers = count()

    def new_miner(self):
        return miner_key(next(self._numbers))


def start_devnet(folder, **settings):
    environment = {
        **os.environ,
        "SN17_STATE_DIR": str(folder),
        "SN17_OPS_PORT": "0",
        "SN17_VALIDATORS": "1",
        "SN17_IMAGE_RATIO": "0",
        "SN17_MINER_HOTKEYS": json.dumps([miner_key(number).ss58_address for number in range(MINERS)]),
        **settings,
    }
    log = (folder / "log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "sn17_devnet"], env=environment, stdout=log, stderr=subprocess.STDOUT
    )
    ready = folder / "devnet.json"
    end = time.monotonic() + 30
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            raise RuntimeError((folder / "log").read_text())
        time.sleep(0.05)
    info = json.loads(ready.read_text())
    real_module.wait_for_port(info["validators"][0]["port"])
    return process, LocalNetwork(info)


@pytest.fixture(scope="session", params=["9.9", "10.5"])
def any_network(request, tmp_path_factory):
    """The local network, playing either release of the transport."""
    folder = tmp_path_factory.mktemp(f"devnet-{request.param}")
    required = "true" if request.param == "10.5" else "false"
    process, network = start_devnet(folder, SN17_REQUIRE_SIGNATURE=required)
    yield network
    process.terminate()
    process.wait(20)


@pytest.fixture(scope="session")
def network(tmp_path_factory):
    process, network = start_devnet(tmp_path_factory.mktemp("devnet"), SN17_REQUIRE_SIGNATURE="true")
    yield network
    process.terminate()
    process.wait(20)


@pytest.fixture(scope="session")
def real_axon():
    axon = real_module.RealAxon(Keypair.create_from_uri("//RealValidator"))
    with axon.serving():
        yield axon
