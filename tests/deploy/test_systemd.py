"""The pages of docs/deploy, typed where a real systemd is the first process: the hardened unit, its credential, reload, watchdog, sockets, stop."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.deploy.place import CAROL, GATEWAY, MAIL_SERVER, Place
from tests.peers.gateway import PROJECT, until
from tests.peers.machine import why_no_systemd

pytestmark = pytest.mark.interop

UNIT = "/etc/systemd/system/mailsec.service"


@pytest.fixture(scope="module")
def systemd(machines):
    if why := why_no_systemd():
        pytest.skip(why)


def under_systemd(page: str, **how: str) -> Place:
    """A place whose service may reach this Python and this checkout, which an administrator's has in /usr and /opt, also where they lie in a home."""
    place = Place(f"deploy/{page}.md", systemd=True, **how)
    place.__enter__()
    homes = [path for path in {PROJECT, Path(sys.base_prefix).resolve()} if path.parts[1] in ("root", "home")]
    if homes:
        drop_in = "[Service]\\nProtectHome=tmpfs\\n" + "".join(f"BindReadOnlyPaths={path}\\n" for path in homes)
        place.machine.run(f"mkdir {UNIT}.d; printf '{drop_in}' > {UNIT}.d/homes.conf; systemctl daemon-reload")
    return place


@pytest.fixture(scope="module")
def place(systemd):
    place = under_systemd("in-front-of-dovecot")
    try:
        yield place.follow()
    finally:
        place.__exit__()


def main_pid(place: Place) -> str:
    return place.machine.run("systemctl show --property MainPID --value mailsec").strip()


def delivers(place: Place, number: str) -> None:
    place.arrives(place.machine.smtp(GATEWAY, 25), place.letter(number))
    assert place.results(number).startswith("smime=pass")


def test_the_page_shows_what_it_says(place):
    assert "is fine" in place.wrote[1] and "running" in place.wrote[1]
    assert "smime=none" in place.mailbox("first")
    place.submits(place.machine.smtp(GATEWAY, 465, tls=place.tls()), "out")
    delivered = until(lambda: place.world.of("<out@demo.example.org>"), 60)[0]
    assert delivered.recipients == (CAROL,)
    place.verify(delivered.octets)


def test_the_service_has_the_ports_below_1024_and_hardly_anything_else(place):
    status = place.machine.run(f"cat /proc/{main_pid(place)}/status")
    assert re.findall(r"^(?:CapBnd|CapEff|CapAmb):\t(\w+)", status, re.M) == [f"{1 << 10:016x}"] * 3
    assert re.search(r"^NoNewPrivs:\t1$", status, re.M) and re.search(r"^Seccomp:\t2$", status, re.M)
    user = place.machine.run("id --user mailsec").strip()
    assert re.search(rf"^Uid:(?:\t{user}){{4}}$", status, re.M)
    mounts = place.machine.run(f"cat /proc/{main_pid(place)}/mounts")
    assert re.search(r" /etc \S+ ro,", mounts) and re.search(r" /var/lib/mailsec \S+ rw,", mounts)
    # Whoever else runs on the machine does not see the pass phrase.
    place.machine.run("setpriv --reuid=alice --regid=alice --clear-groups cat /run/credentials/mailsec.service/*", succeeds=False)


def test_reload_brings_a_new_generation_or_says_what_is_wrong_and_changes_nothing(place):
    before = main_pid(place)
    place.machine.run("systemctl reload mailsec")
    assert "generation 1 (1 reload)" in place.machine.run("mailsec status")
    place.machine.run("sed -i.right 's/^hostname = /hostnam = /' /etc/mailsec/mailsec.toml")
    place.machine.run("systemctl reload mailsec", succeeds=False)
    assert "hostnam: there is no such setting" in place.machine.run("journalctl --unit mailsec --no-pager")
    place.machine.run("mv /etc/mailsec/mailsec.toml.right /etc/mailsec/mailsec.toml")
    assert main_pid(place) == before
    delivers(place, "reloaded")


def test_a_supervisor_that_is_stopped_is_replaced_by_the_watchdog(place):
    place.machine.run(
        f"mkdir -p {UNIT}.d; printf '[Service]\\nWatchdogSec=4\\n' > {UNIT}.d/watchdog.conf;"
        "systemctl daemon-reload; systemctl restart mailsec"
    )
    before = main_pid(place)
    place.machine.run(f"kill -STOP {before}")
    until(lambda: main_pid(place) not in ("0", before), 60, "another supervisor")
    place.machine.until("systemctl is-active mailsec || true", "active\n")
    assert "Failed with result 'watchdog'" in place.machine.run("journalctl --unit mailsec --no-pager")
    place.machine.until("mailsec status || true", "is running")
    delivers(place, "watched")


def test_stop_lets_what_was_begun_be_finished_and_leaves_nothing(place):
    with place.machine.smtp(GATEWAY, 25) as client:
        client.ehlo()
        place.machine.run("systemctl stop mailsec")
        assert client.noop()[0] == 421
    assert "Result=success" in place.machine.run("systemctl show --property Result mailsec")
    assert place.machine.run("pgrep --uid mailsec || true") == ""
    place.machine.run("systemctl start mailsec")


def test_ports_that_systemd_opened_need_no_capability_and_wait_during_a_restart(place):
    place.machine.run(
        f"systemctl stop mailsec; cp contrib/systemd/mailsec.socket /etc/systemd/system/; mkdir -p {UNIT}.d;"
        f"printf '[Service]\\nAmbientCapabilities=\\nCapabilityBoundingSet=\\n' > {UNIT}.d/ports.conf;"
        "systemctl daemon-reload; systemctl enable --now mailsec.socket"
    )
    assert main_pid(place) == "0"
    # The first connection starts it.
    delivers(place, "activated")
    assert re.search(r"^CapBnd:\t0+$", place.machine.run(f"cat /proc/{main_pid(place)}/status"), re.M)
    place.machine.run("systemctl restart --no-block mailsec")
    delivers(place, "restarted")


@pytest.mark.parametrize("page", ["beside-postfix", "as-a-proxy", "to-a-smart-host"])
def test_the_other_pages_are_typed_in_the_same_way(systemd, page):
    place = under_systemd(page, postfix_at=MAIL_SERVER if page == "to-a-smart-host" else "")
    try:
        if page == "to-a-smart-host":
            place.start_provider("example", "the password at the provider")
        place.follow()
        assert "smime=none" in place.mailbox("first")
        assert place.machine.run("systemctl is-active mailsec postfix dovecot") == "active\n" * 3
    finally:
        place.__exit__()
