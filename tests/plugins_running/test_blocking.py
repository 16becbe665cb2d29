"""A plugin that blocks the reactor: it is named, its worker ends, and after three times it is off with its hooks answering 451."""

from __future__ import annotations

import os
import shutil
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mailsec.app.descriptors import DescriptorWatch
from mailsec.app.plugin_marks import PERIOD, PluginMarks
from mailsec.app.watchdog import EXIT_CODE, Watchdog
from mailsec.hookspecs import hookimpl
from mailsec.model.session import Origin, Session
from mailsec.plugins import PluginManager
from mailsec.plugins.origins import Origins
from mailsec.testing import values
from mailsec.testing.gateway import MemoryGateway
from mailsec.testing.runtime import FakeRuntime
from tests.peers.gateway import Gateway, until

AT = datetime(2026, 5, 1, tzinfo=UTC)

# -- the running gateway ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway(tmp_path_factory) -> Iterator[Gateway]:
    if os.geteuid() != 0:
        pytest.skip("only root can write what belongs to root")
    place = tmp_path_factory.mktemp("blocking")
    (place / "plugins").mkdir()
    shutil.copy(Path(__file__).with_name("blocking_plugin.py"), place / "plugins" / "house.py")
    made = Gateway(
        place / "gateway",
        9,
        workers=1,
        gateway={"limits": {"reactor_blocked": 2}},
        plugins={"enabled": ["house"], "path": [str(place / "plugins")]},
    )
    try:
        yield made.start()
    finally:
        made.close()


def send(gateway: Gateway, subject: str) -> int:
    """The code of the reply to a message; 0 where the connection was lost."""
    try:
        with gateway.client("trusted") as client:
            client.sendmail("alice@example.org", ["carol@partner.example"], f"From: alice@example.org\r\nSubject: {subject}\r\n\r\nx\r\n")
            return 250
    except smtplib.SMTPDataError as error:
        return error.smtp_code
    except (smtplib.SMTPServerDisconnected, ConnectionError):
        return 0


def test_who_blocks_is_named_ends_the_worker_and_is_off_after_three_times(gateway):
    assert send(gateway, "linger") == 250
    until(lambda: gateway._events("reactor is blocked"), what="a line in the log")
    named = gateway._events("reactor is blocked")[0]
    assert named["plugin"] == "house" and "check_message" in named["stack"][-1] and gateway.deaths() == 0
    for number in range(3):
        assert send(gateway, "block") == 0
        until(
            lambda number=number: gateway.deaths() == number + 1 and len(gateway._events("worker is ready")) == number + 2, what="a worker"
        )
    ended = gateway._events("a plugin blocks the worker; the worker ends")
    assert [one["plugin"] for one in ended] == ["house"] * 3
    assert send(gateway, "anything") == 451 and send(gateway, "block") == 451
    assert gateway.deaths() == 3 and gateway._events("plugin is off")[-1]["plugin"] == "house"


def test_it_is_shown_and_can_be_switched_on_again(gateway):
    marks = PluginMarks(str(gateway.directory / "state"))
    marks.forgive("house")
    for _ in range(3):
        marks.add("house", datetime.now(UTC))

    def plugins(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mailsec", "plugins", "-c", str(gateway.configuration), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    shown = plugins()
    assert "off: it has blocked a worker 3 times" in shown.stdout and "--on house" in shown.stderr
    assert plugins("--on", "house").returncode == 0
    assert "off:" not in plugins().stdout and plugins("--on", "house").returncode == 2


# -- the parts ----------------------------------------------------------------------------------------------------------------


def test_marks_count_within_a_day_and_outlive_whoever_wrote_them(tmp_path):
    for hours in (0, 1, 2):
        assert not PluginMarks(str(tmp_path)).off(AT)
        PluginMarks(str(tmp_path)).add("slow", AT + timedelta(hours=hours))
    PluginMarks(str(tmp_path)).add("other", AT)
    late = AT + timedelta(hours=3)
    assert (
        list(PluginMarks(str(tmp_path)).off(late)) == ["slow"]
        and "3 times, last on 2026-05-01 02:00" in PluginMarks(str(tmp_path)).off(late)["slow"]
    )
    assert not PluginMarks(str(tmp_path)).off(AT + timedelta(seconds=PERIOD))


@pytest.mark.parametrize("text", [b"\xff\xfe\t12\n", b"slow\n", b"slow\t-1\nslow\tx\nslow\t999999999999999\n", b"\0" * 100])
def test_marks_that_cannot_be_read_are_none(tmp_path, text):
    (tmp_path / "blocked-plugins").write_bytes(text)
    assert not PluginMarks(str(tmp_path)).off(AT)


def blocked_thrice(directory) -> PluginMarks:
    marks = PluginMarks(str(directory))
    for _ in range(3):
        marks.add("house", AT)
    return marks


def test_attack_a_link_in_the_state_directory_leads_root_nowhere_when_a_plugin_is_switched_on(tmp_path):
    state, victim = tmp_path / "state", tmp_path / "crontab"
    state.mkdir()
    victim.write_text("root's own\n")
    marks = blocked_thrice(state)
    marks.add("* * * * * root id #", AT)
    (state / "blocked-plugins.new").symlink_to(victim)
    assert marks.forgive("house") and not marks.off(AT)
    assert victim.read_text() == "root's own\n"
    (state / "blocked-plugins").unlink()
    (state / "blocked-plugins").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic"):
        marks.add("house", AT)
    assert victim.read_text() == "root's own\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_attack_blocking_is_still_counted_after_root_has_switched_a_plugin_on(tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 65534, 65534)
    assert blocked_thrice(state).forgive("house")
    status = (state / "blocked-plugins").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (65534, 65534, 0o600)


class Watched:
    """A watchdog that looks when the test says so, at a stack that the test makes."""

    def __init__(self, tmp_path) -> None:
        scope = {"__name__": "some_plugin.inside", "sys": sys}
        exec("def frame(): return sys._getframe()", scope)
        self.plugins, self.ours = scope["frame"], sys._getframe
        self.frame, self.busy, self.ended = self.plugins, 1.0, []
        plugin = type("Plugin", (), {"__module__": "some_plugin.plugin"})()
        self.marks = PluginMarks(str(tmp_path))
        self.dog = Watchdog(
            lambda: self.busy, Origins([("some", plugin)]), self.marks, 1.0, frame=lambda: self.frame(), end=self.ended.append
        )

    def look(self, times: int) -> list:
        with capture_logs() as logs:
            for _ in range(times):
                self.dog.look()
        return logs


@pytest.fixture
def watched(tmp_path) -> Watched:
    return Watched(tmp_path)


def test_a_plugin_is_named_after_a_tenth_of_a_second_and_ends_the_worker_after_the_limit(watched):
    assert watched.look(2) == []
    (named,) = watched.look(1)
    assert named["plugin"] == "some" and named["log_level"] == "warning" and "frame" in named["stack"][-1]
    assert watched.look(17) == [] and not watched.ended
    watched.look(1)
    assert watched.ended == [EXIT_CODE]
    assert (watched.marks._path).read_text().startswith("some\t")


def test_what_is_ours_is_never_ended_for(watched):
    watched.frame = watched.ours
    logs = watched.look(500)
    assert not watched.ended and [one["log_level"] for one in logs] == ["debug"]


def test_a_reactor_that_waits_or_goes_on_is_not_blocked(watched):
    for number in range(100):
        watched.busy = float(number % 7)
        assert watched.look(2) == []
    watched.busy = 0.0
    assert watched.look(500) == [] and not watched.ended


def test_the_time_of_somebody_else_is_not_counted_against_a_plugin(watched):
    watched.frame = watched.ours
    watched.look(15)
    watched.frame = watched.plugins
    watched.look(10)
    assert not watched.ended


# -- a plugin that is off -----------------------------------------------------------------------------------------------------


def gateway_without(plugin: object) -> MemoryGateway:
    made = MemoryGateway(plugin)
    made.plugins.switch_off("p0", "it has blocked a worker 3 times")
    made.plugins.load()
    return made


@pytest.mark.parametrize(
    "hook", ["check_message", "plan_protection", "decide_message", "annotate_message", "register_certificate_directories"]
)
def test_without_what_is_off_mail_is_deferred(hook):
    asked = []

    def implementation(self):
        asked.append(hook)

    made = gateway_without(type("Plugin", (), {hook: hookimpl(implementation)})())
    before = len(asked)
    for reply in (made.trust("From: alice@example.org\n\nx\n"), made.arrive("From: eve@example.net\n\nx\n", "alice@example.org")):
        assert reply.code == 451
    assert len(asked) == before and not made.spool.rows


def test_without_a_service_that_is_off_mail_goes_on_and_its_listener_says_nothing():
    class Plugin:
        @hookimpl
        def register_tcp_services(self):
            return [type("Service", (), {"name": "echo"})]

    manager = PluginManager()
    manager.add(Plugin(), "echo plugin", built_in=False)
    manager.switch_off("echo plugin", "it has blocked a worker 3 times")
    manager.load()
    (service,) = manager.providers("register_tcp_services", gateway=None)
    assert service.name == "echo"
    with pytest.raises(Exception, match="is off: it has blocked a worker 3 times"):
        service.open(Session("1", "x", Origin.INTERNET, "192.0.2.1"))
    runtime = FakeRuntime()
    assert runtime.run(manager.findings(runtime, transaction=values.transaction("x"), original=None, smime=None)) == ()


def test_attack_a_plugin_that_mail_has_switched_off_keeps_no_worker_from_starting():
    told = []

    class Plugin:
        @hookimpl
        def startup(self, gateway):
            told.append("startup")

        @hookimpl
        def shutdown(self, gateway):
            told.append("shutdown")

    made = gateway_without(Plugin())
    made.runtime.run(made.pipeline.startup())
    made.runtime.run(made.pipeline.shutdown())
    assert not told


# -- descriptors --------------------------------------------------------------------------------------------------------------


def test_a_plugin_that_leaks_descriptors_is_named_before_the_limit_is_reached(tmp_path):
    scope = {"__name__": "leaky_plugin"}
    exec("def leak(): return open('/dev/null')", scope)
    plugin = type("Plugin", (), {"__module__": "leaky_plugin"})()
    held, events = [], []
    watch = DescriptorWatch(FakeRuntime(), Origins([("leaky", plugin)]), events.append, limit=100, count=lambda: 20 + len(held))
    for _ in range(90):
        if len(held) % 5 == 0:
            watch.look()
        held.append(scope["leak"]())
        with (tmp_path / "x").open("w"):
            pass  # what others open and close
    for file in held:
        file.close()
    (event,) = events
    assert event.name == "descriptors run out" and event.fields["plugin"] == "leaky" and event.fields["descriptors"] < 90
    held.clear()
    watch.look()
    assert not watch._counting


def test_a_plugin_that_leaks_faster_than_anybody_looks_is_named_with_the_next_look(tmp_path):
    scope = {"__name__": "leaky_plugin"}
    exec("def leak(): return open('/dev/null')", scope)
    plugin = type("Plugin", (), {"__module__": "leaky_plugin"})()
    held, events = [], []
    watch = DescriptorWatch(FakeRuntime(), Origins([("leaky", plugin)]), events.append, limit=100, count=lambda: 20 + len(held))
    for target in (10, 60, 65, 66):
        held += [scope["leak"]() for _ in range(target - len(held))]
        watch.look()
    for file in held:
        file.close()
    assert [event.fields["plugin"] for event in events] == ["", "leaky"]
