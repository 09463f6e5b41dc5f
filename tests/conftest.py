"""Servers that tests of several folders share, each started once for a test process."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.support.lost_workers import LostWorkers
from tests.support.servers.ministack import Ministack, running_ministack
from tests.support.servers.postgres import PostgresServer, migrated_template, postgres_server
from tests.support.servers.pubsub_emulator import PubsubEmulator, emulator_program, pubsub_emulator
from tests.support.servers.redis import RedisServer, redis_server

if sys.dont_write_bytecode:
    # Each of the hundreds of programs that tests start would compile all its modules anew. They are kept, but not beside the sources.
    sys.dont_write_bytecode = False
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(Path(__file__).parents[1] / ".cache" / "bytecode")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# How long an example takes tells of the machine, and not of what is tested.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# As many as sources that a fault may happen to, of which a share plays one a step.
_TIMES_OF_A_SHARE = 6


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole-matrix", action="store_true", help="play every fault at every step of every source, not a share of them")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(LostWorkers(config))


def pytest_collection_modifyitems(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """Let a test that plays the whole of what it plays a share of by default take longer."""
    for item in items if config.getoption("whole_matrix") else ():
        if bound := item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_TIMES_OF_A_SHARE * bound.args[0]), append=False)


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """A command that runs in the test's own process sets the logs to that test's standard error, which is closed behind it."""
    root, configuration = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.configure(**configuration)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ministack]:
    """SQS, SNS and S3."""
    with running_ministack(tmp_path_factory.mktemp("ministack")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def new_postgres_database(postgres: PostgresServer) -> Callable[[], str]:
    """Makes databases of the newest schema, and tells their addresses. Copying one is quicker than migrating each."""
    template = migrated_template(postgres)
    return lambda: postgres.new_database(template=template)


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """A Redis server. Tests keep to keys of their own."""
    with redis_server() as server:
        yield server


@pytest.fixture(scope="module")
def own_redis() -> Iterator[RedisServer]:
    """A Redis server of a module's own, which its tests may empty, stop and set."""
    with redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def google_emulator() -> Iterator[PubsubEmulator]:
    """Google's emulator of Pub/Sub. Tests keep to topics of their own."""
    if not emulator_program():
        pytest.skip("Google's emulator of Pub/Sub is not on this machine: gcloud components install pubsub-emulator")
    with pubsub_emulator() as emulator:
        yield emulator
