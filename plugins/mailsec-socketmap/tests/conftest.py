"""Where a test fails, the logs of Postfix and of the gateway are shown."""

from tests.peers.logs import pytest_runtest_makereport  # noqa: F401 - pytest finds it here
