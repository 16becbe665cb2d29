"""Where there can be no machine, deployments are skipped by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.peers import machine
from tests.peers.machine import PATH


@pytest.fixture(scope="session")
def machines():
    """Skips where a machine with Postfix, Dovecot and swaks cannot be made."""
    if why := machine.why_not():
        pytest.skip(why)
    absent = [name for name in ("postfix", "dovecot", "swaks", "openssl") if shutil.which(name, path=PATH) is None]
    if absent or not Path("/usr/lib/dovecot/lmtp").exists():
        pytest.skip(f"absent: {', '.join(absent) or 'dovecot-lmtpd'}: apt-get install postfix dovecot-lmtpd swaks openssl")


@pytest.fixture(scope="module")
def dora(place):
    """A correspondent who has a certificate, and whom the machine of `place` knows before its page is followed."""
    from tests.deploy.partner import Dora

    dora = Dora(place)
    place.follow()
    return dora
