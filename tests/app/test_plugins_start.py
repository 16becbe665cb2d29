"""What a plugin needs is looked at before anything is started; one that cannot start all the same has `serve` say so, once, and end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from twisted.internet.error import ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mailsec.app.commands.init import set_up_database
from mailsec.app.config import ConfigurationErrors
from mailsec.app.config.render import render
from mailsec.app.generation import Orders, Worker
from mailsec.app.opening import open_configuration
from mailsec.app.supervisor import Supervisor
from tests.app.conftest import PROJECT, Served, until

KEY = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n"  # RFC 8463 §A.2
SIGN = '[[plugin.dkim.sign]]\ndomain = "example.org"\nselector = "s"\n'


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("database")
    directory.chmod(0o700)
    set_up_database(directory, "gw.example.org", ["example.org"])
    return directory


def problems(database: Path, place: Path, plugin: str, text: str) -> list[str]:
    """What `check` and `serve` say of a configuration in `place` with this table."""
    values = {
        "gateway": {"hostname": "gw.example.org", "domains": ["example.org"], "workers": 1},
        "listener": [{"address": "127.0.0.1:2525", "origin": "internet"}],
        "database": {"location": str(database / "mailsec.db")},
        "passphrase": {"method": "file", "file": str(database / "passphrase")},
        "relay": {"next_hop": "smtp://[127.0.0.1]:2526"},
        "plugins": {"enabled": [plugin]},
    }
    place.chmod(0o700)
    (place / "mailsec.toml").write_text(render(values) + text)
    try:
        open_configuration(str(place / "mailsec.toml"))[1].close()
    except ConfigurationErrors as errors:
        return [one.message.partition(": ")[2] for one in errors.problems]
    return []


@pytest.mark.parametrize(
    ("plugin", "text", "told"),
    [
        ("dkim", SIGN + 'key_file = "absent"\n', "plugin.dkim.sign[0].key_file: cannot read PLACE/absent: no such file or directory"),
        ("dkim", SIGN + 'key_file = "open"\n', "plugin.dkim.sign[0].key_file: others may read the secret in PLACE/open"),
        ("dkim", SIGN + 'key_file = "text"\n', "plugin.dkim.sign[0].key_file: PLACE/text: not a private key"),
        ("dkim", SIGN + 'key = "nobody"\n', "plugin.dkim.sign[0].key: there is no key called nobody"),
        ("dkim", SIGN + 'key = "pkcs11:nonsense=1"\n', "plugin.dkim.sign[0].key: "),
        ("ldap", '[plugin.ldap]\nca_file = "absent"\n', "plugin.ldap.ca_file: cannot read PLACE/absent: no such file or directory"),
        (
            "ldap",
            '[plugin.ldap]\nca_file = "text"\n',
            "plugin.ldap.ca_file: cannot read the anchors in PLACE/text: it holds no certificate",
        ),
        (
            "ldap",
            '[plugin.ldap]\nbind_dn = "cn=x"\npassword_file = "absent"\n',
            "plugin.ldap.password_file: cannot read PLACE/absent: no such file or directory",
        ),
        (
            "ldap",
            '[plugin.ldap]\nbind_dn = "cn=x"\npassword_file = "empty"\n',
            "plugin.ldap.password_file: there is no password in PLACE/empty",
        ),
        ("ocsp", '[plugin.ocsp]\nauthorities = ["None"]\n', "plugin.ocsp.authorities[0]: "),
        ("ocsp", '[plugin.ocsp]\nsigners = ["None"]\n', "plugin.ocsp.signers[0]: there is no key called 'None'"),
        (
            "accel",
            '[[plugin.accel.modules]]\nmodule = "hsm"\ntoken = "T"\n',
            "plugin.accel.modules[0].module: there is no module called 'hsm'",
        ),
    ],
)
def test_what_a_plugin_would_miss_is_told_with_its_place_before_anything_is_started(database, tmp_path, plugin, text, told):
    for name, content, mode in (("open", KEY, 0o644), ("text", "no key\n", 0o600), ("empty", "\n", 0o600)):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(mode)
    found = problems(database, tmp_path, plugin, text)
    assert [one.startswith(told.replace("PLACE", str(tmp_path))) for one in found] == [True], found


def test_a_plugins_files_lie_beside_the_configuration_and_a_token_that_is_out_is_no_mistake(database, tmp_path, monkeypatch):
    (tmp_path / "key.pem").write_text(KEY)
    (tmp_path / "key.pem").chmod(0o600)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert problems(database, tmp_path, "dkim", SIGN + 'key_file = "key.pem"\n') == []
    assert problems(database, tmp_path, "dkim", SIGN + 'key = "card:dkim"\n') == []


# -- the running gateway ------------------------------------------------------------------------------------------------------

PLUGIN = """
import pathlib

from mailsec.errors import Unavailable
from mailsec.hookspecs import hookimpl

MARKS = pathlib.Path(__file__).with_suffix(".marks")


@hookimpl
def startup(gateway):
    with MARKS.open("a") as file:
        file.write("x")
    HOW
"""


def with_plugin(served: Served, how: str) -> Path:
    """A plugin file whose start goes `how`; the file that it marks each start in."""
    if os.geteuid() != 0:
        pytest.skip("only root can write what belongs to root")
    directory = served.directory / "plugins"
    directory.mkdir(mode=0o755)
    (directory / "house.py").write_text(PLUGIN.replace("HOW", how))
    text = served.configuration.read_text()
    assert text.count("\n[plugins]\n") == 1
    served.configuration.write_text(text.replace("\n[plugins]\n", f'\n[plugins]\nenabled = ["house"]\npath = ["{directory}"]\n'))
    return directory / "house.marks"


@pytest.mark.parametrize(
    ("how", "code", "sentence"),
    [
        ('raise OSError("no such device")', 1, "nothing was started: plugin house: startup: OSError: no such device"),
        (
            'from mailsec.errors import ConfigurationError; raise ConfigurationError("the table is empty", hint="fill it")',
            78,
            "nothing was started: plugin house: the table is empty",
        ),
    ],
)
def test_a_plugin_that_cannot_start_has_serve_say_why_once_and_end(served: Served, how, code, sentence):
    marks = with_plugin(served, how)
    done = subprocess.run(
        [sys.executable, "-m", "mailsec", "serve", "-c", str(served.configuration)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=served.directory,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert done.returncode == code and marks.read_text() == "x", done.stderr
    assert done.stderr.splitlines()[-2] == f"mailsec: error: {sentence}" and done.stderr.splitlines()[-1].startswith("mailsec: hint: ")
    assert "Traceback" not in done.stderr and done.stderr.count("a worker cannot start; stopping") == 1


def test_a_plugin_whose_server_comes_later_is_started_again(served: Served):
    marks = with_plugin(served, 'if len(MARKS.read_text()) < 2: raise Unavailable("the server is away", hint="start it")')
    served.start().ready()
    assert marks.read_text() == "xx"
    (died,) = served.events("worker died; it is replaced")
    assert (died["error"], died["hint"]) == ("plugin house: the server is away", "start it")


# -- the supervisor -----------------------------------------------------------------------------------------------------------


class Told:
    """What systemd is told."""

    def __init__(self):
        self.lines: list[str] = []

    def tell(self, *lines: str) -> None:
        self.lines += lines


class Machine(Clock):
    """Processes that begin, and do nothing by themselves."""

    running = False

    def spawnProcess(self, *arguments, **more) -> None: ...


def supervisor() -> Supervisor:
    made = Supervisor(Machine(), orders=Orders("x", "", b"", 2, []), spool_directory="", environment={})
    made.systemd = Told()
    return made


def end(made: Supervisor, code: int, **unable: object) -> None:
    """The worker of place 0 ends, after these words."""
    worker = made.serving.workers[0] = Worker(made, made.serving, 0, 0)
    worker.unable = unable
    made.worker_ended(worker, Failure(ProcessTerminated(code)))


def test_what_systemd_shows_is_why_nothing_was_started():
    made = supervisor()
    end(made, 1, error="plugin house: no", hint="mend it", again=False)
    assert made.stopping and made.exit_code == 1 and made.refusal.hint == "mend it"
    assert made.systemd.lines == ["STOPPING=1", "STATUS=nothing was started: plugin house: no"]


def test_workers_that_end_without_a_word_are_started_later_and_later_and_then_given_up():
    made = supervisor()
    waits = []
    for _ in range(made.timing.hopeless - 1):
        end(made, 139)
        waits.append(made.reactor.getDelayedCalls()[0].getTime() - made.reactor.seconds())
        made.reactor.advance(waits[-1])
    assert not made.stopping and waits == sorted(waits) and waits[0] < waits[-1] / 100
    end(made, 139)
    assert made.stopping and made.exit_code == 1
    assert made.refusal.message == "nothing was started: workers end before they are ready (exit code 139, 6 times in a row)"


def test_what_serves_goes_on_when_a_worker_can_no_longer_start_however_often():
    made = supervisor()
    made.was_ready = True
    for _ in range(made.timing.hopeless + 2):
        end(made, 1, error="plugin house: no", hint="", again=False)
        made.reactor.advance(60)
    assert not made.stopping and made.systemd.lines[-1] == "STATUS=worker 0 cannot start: plugin house: no"


def test_a_reload_whose_workers_cannot_start_says_why(served: Served):
    marks = with_plugin(served, 'if len(MARKS.read_text()) > 1: raise OSError("no such device")')
    served.start().ready()
    command = [sys.executable, "-m", "mailsec", "reload", "-c", str(served.configuration)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "PYTHONPATH": str(PROJECT)})
    assert done.returncode == 1 and "plugin house: startup: OSError: no such device" in done.stderr, done.stderr
    assert "the generation before goes on" in done.stderr and marks.read_text() == "xx"
    until(lambda: served.has("a worker of the new generation ended"), what="a line in the log")
    served.connect().close()
