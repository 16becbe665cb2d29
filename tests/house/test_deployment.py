"""The files of contrib are what docs/deploy.md says: configurations that pass `check`, units that systemd reads, Postfix's lines.

The pages of docs/deploy themselves are typed on machines of tests/deploy, with Postfix and Dovecot.
"""

from __future__ import annotations

import io
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest

from mailsec.app import cli
from mailsec.app.output import Output

PROJECT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = sorted((PROJECT / "contrib").glob("*/mailsec.toml"))
PUBLIC_ROOTS = Path("/etc/ssl/certs/ca-certificates.crt")
PAGES = (PROJECT / "docs/deploy.md").read_text() + "".join(page.read_text() for page in sorted((PROJECT / "docs/deploy").glob("*.md")))


def run(*arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return cli.run(arguments, Output(out, err)), out.getvalue(), err.getvalue()


def moved(text: str, root: Path) -> str:
    """The text with the directories of a machine below `root`."""
    return re.sub(r"(?<![\w.])/(?=(?:etc|run|var)/)", f"{root}/", text)


@pytest.fixture(scope="module")
def machine(tmp_path_factory) -> Path:
    """A machine on which the commands of docs/deploy.md were typed, up to `mailsec check`."""
    root = tmp_path_factory.mktemp("machine")
    for name in ("etc/mailsec/credentials", "var/lib/mailsec", "run/mailsec", "run/dovecot"):
        (root / name).mkdir(parents=True, mode=0o700)
    for name, text in {
        "credentials/mailsec-passphrase": "a pass phrase\n",
        "relay.password": "another\n",
        "tenant-secret": "0123456789abcdef0123\n",
    }.items():
        (root / "etc/mailsec" / name).write_text(text)
        (root / "etc/mailsec" / name).chmod(0o600)
    configuration = root / "etc/mailsec/mailsec.toml"
    configuration.write_text(moved((PROJECT / "contrib/in-front-of-dovecot/mailsec.toml").read_text(), root))
    page = (PROJECT / "docs/deploy.md").read_text()
    typed = re.search(r"\nexport CREDENTIALS_DIRECTORY=(\S+)\n((?:.+\n)+)```", page)
    assert typed is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CREDENTIALS_DIRECTORY", moved(typed[1], root))
        commands = [line.split(None, 1)[1] for line in typed[2].splitlines() if line.strip().startswith("mailsec ")]
        assert len(commands) >= 5
        # docs/deploy/to-a-smart-host.md imports the certificate of the mail server under this name.
        commands.append("cert issue --host mail.example.org --nickname mail-server")
        for command in commands:
            words = shlex.split(moved(command, root))
            if "-d" not in words:
                words += ["-c", str(configuration)]
            code, _out, err = run(*words)
            assert code == 0, (command, err)
    # Whom the machine believes.
    (root / "etc/ssl/certs").mkdir(parents=True)
    shutil.copy(PUBLIC_ROOTS if PUBLIC_ROOTS.exists() else root / "etc/mailsec/example-ca.pem", root / "etc/ssl/certs/ca-certificates.crt")
    return root


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.parent.name)
def test_an_example_passes_check_on_the_machine_that_the_page_makes(example: Path, machine: Path, monkeypatch):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(machine / "etc/mailsec/credentials"))
    configuration = machine / "etc/mailsec" / f"{example.parent.name}.toml"
    configuration.write_text(moved(example.read_text(), machine))
    code, out, err = run("check", "-c", str(configuration))
    assert code == 0, err
    assert "is fine" in out and "warning" not in err


def test_roots_that_public_authorities_once_made_are_read_without_a_word():
    """One in Debian's file has a serial number of zero, of which a library warns on standard error."""
    if not PUBLIC_ROOTS.exists():
        pytest.skip("no ca-certificates here")
    from mailsec.app.config.surroundings import read_anchor_file

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_anchor_file(str(PUBLIC_ROOTS))) > 50


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.parent.name)
def test_an_example_writes_where_the_unit_lets_it(example: Path):
    settings = tomllib.loads(example.read_text())
    assert settings["gateway"]["run_directory"] == "/run/mailsec"
    assert settings["gateway"]["state_directory"].startswith("/var/lib/mailsec/")
    assert settings.get("spool", {"directory": "/var/lib/mailsec/spool"})["directory"].startswith("/var/lib/mailsec/")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.parent.name)
def test_every_example_stands_in_the_page(example: Path):
    assert f"(../contrib/{example.parent.name})" in (PROJECT / "docs/deploy.md").read_text()


def test_every_file_of_contrib_stands_in_the_page():
    for path in (PROJECT / "contrib").rglob("*"):
        named = path.parent if path.name == "mailsec.toml" else path
        assert path.is_dir() or str(named.relative_to(PROJECT)) in PAGES, path


@pytest.mark.parametrize(("name", "instance", "exposure"), [("mailsec", "", 2.0), ("mailsec-token-host@", "hsm", 6.5)])
def test_a_unit_is_one_that_systemd_reads_and_finds_safe(need, tmp_path, name: str, instance: str, exposure: float):
    """A token host keeps devices and the network: the library of an HSM needs them."""
    analyze = need("systemd-analyze", "systemd")
    text = (PROJECT / f"contrib/systemd/{name}.service").read_text()
    unit = tmp_path / f"{name}{instance}.service"
    # Five failures in ten seconds, and systemd would try no more.
    assert "StartLimitIntervalSec=0" in text.partition("[Service]")[0] and "Restart=always" in text
    unit.write_text(re.sub(r"(ExecStart|ExecReload)=\S+", rf"\1={sys.executable}", text))
    done = subprocess.run([analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and unit.name not in done.stderr, done.stderr
    done = subprocess.run([analyze, "security", "--offline=true", "--no-pager", str(unit)], capture_output=True, text=True, check=False)
    score = re.search(rf"exposure level for {unit.name}: ([0-9.]+)", done.stdout)
    if score is None:
        pytest.skip("this systemd-analyze cannot judge a unit offline")
    assert float(score[1]) <= exposure, done.stdout


def test_the_unit_gives_the_credential_that_mailsec_reads():
    from mailsec.app.passphrase import CREDENTIAL
    from mailsec.errors import ConfigurationError

    text = (PROJECT / "contrib/systemd/mailsec.service").read_text()
    assert re.search(rf"^LoadCredential={CREDENTIAL}:", text, re.MULTILINE)
    assert "Type=notify" in text and f"RestartPreventExitStatus={ConfigurationError.exit_code}" in text


def test_the_lines_for_postfix_are_lines_that_postfix_reads(need, tmp_path):
    postconf = need("postconf", "postfix")
    services = "pickup unix n - y 60 1 pickup\ncleanup unix n - y - 0 cleanup\nqmgr unix n - n 300 1 qmgr\nsmtp unix - - y - - smtp\n"
    (tmp_path / "master.cf").write_text(services + (PROJECT / "contrib/beside-postfix/master.cf").read_text())
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\n" + (PROJECT / "contrib/beside-postfix/main.cf").read_text())
    done = subprocess.run([postconf, "-c", str(tmp_path), "-P"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    settings = dict(line.split(" = ", 1) for line in done.stdout.splitlines() if " = " in line)
    example = (PROJECT / "contrib/beside-postfix/mailsec.toml").read_text()
    # Both halves name the same ports, and the way back has no filter.
    for service, port in (("submission", 10025), ("smtp", 10027)):
        assert settings[f"{service}/inet/content_filter"] == f"smtp:[127.0.0.1]:{port}" and f'"127.0.0.1:{port}"' in example
    assert re.search(r"^127\.0\.0\.1:10026/inet/content_filter =\s*$", done.stdout, re.MULTILINE) and "smtp://[127.0.0.1]:10026" in example
    done = subprocess.run([postconf, "-c", str(tmp_path), "-n"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
