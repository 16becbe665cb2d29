"""What all tests share: where third-party data lies, and one way to say that a peer is absent."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.peers.logs import pytest_runtest_makereport  # noqa: F401 - pytest finds it here

# A busy machine makes no test fail: time is measured by `make bench`, not here.
settings.register_profile("mailsec", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mailsec")

PROJECT = Path(__file__).resolve().parent.parent
VECTORS = PROJECT.parent / "shared" / "vectors"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What types at a machine comes first.

    A worker of pytest-xdist begins at its first test, and the others take over from its last ones: none of them starts the same machine again.
    """
    items.sort(key=lambda item: "machines" not in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of third-party test data beside the checkout; skips where it is absent."""
    if not VECTORS.is_dir():
        pytest.skip("no ../shared/vectors beside this checkout")
    return VECTORS


@pytest.fixture(autouse=True)
def log_as_before():
    """Commands that run in the tests' own process say where their log goes; the next test finds it as it was."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session")
def need():
    """A function that returns the path of a program, or skips the test by name where it is absent."""

    def find(program: str, package: str = "") -> str:
        path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin:/usr/libexec/postfix:/usr/lib/postfix/sbin")
        if path is None:
            pytest.skip(f"{program} is absent: apt-get install {package or program}")
        return path

    return find


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server of our own, stopped at the end; skips where it is not installed."""
    from tests.peers.postgres import start_postgres

    server = start_postgres()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def umask():
    """A command that runs within a test hardens the process (umask 077); what a later test lays out for servers of other users must be readable."""
    yield
    os.umask(0o022)
