"""docs/write-a-plugin.md: the code on the page is written out as it stands there, is short, passes its own tests, and runs in the gateway."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from mailsec.app import cli
from mailsec.app.output import Output
from tests.peers.gateway import Gateway

PROJECT = Path(__file__).resolve().parents[2]
PAGE = (PROJECT / "docs/write-a-plugin.md").read_text()
KINDS = ["tcp", "revocation", "directory", "accelerator", "policy"]


def on_the_page() -> Mapping[str, str]:
    """Path to source of each block of Python, whose first line names its file."""
    return dict(re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))


def mailsec(*words: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return cli.run(words, Output(out, err)), out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Mapping[str, Path]:
    """The package of the page, and a new one of each kind."""
    made = {"page": tmp_path_factory.mktemp("page")}
    for path, source in on_the_page().items():
        (made["page"] / path).parent.mkdir(exist_ok=True)
        (made["page"] / path).write_text(source)
    for kind in KINDS:
        made[kind] = tmp_path_factory.mktemp("kinds") / kind
        code, out, err = mailsec("plugin", "new", f"my-{kind}", "--kind", kind, "-o", str(made[kind]))
        assert code == 0 and "pytest" in out, err
    return made


def test_the_plugin_of_the_page_is_short_and_keeps_the_contracts():
    assert len(on_the_page()["mailsec_lookup/plugin.py"].strip().splitlines()) < 80
    assert {"check_tcp_service", "check_plugin"} <= set(re.findall(r"\w+", on_the_page()["tests/test_plugin.py"]))
    assert all(f"`{kind}`" in PAGE or f"--kind {kind}" in PAGE for kind in KINDS)


def test_the_tests_of_the_page_and_of_a_new_plugin_of_each_kind_pass(packages):
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--import-mode=importlib",
        "--rootdir",
        str(packages["page"]),
    ]
    environment = {**os.environ, "PYTHONPATH": ":".join(map(str, packages.values())), "PYTHONDONTWRITEBYTECODE": "1"}
    folders = [str(place / "tests") for place in packages.values()]
    done = subprocess.run(
        [*command, *folders], cwd=packages["page"], env=environment, capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0 and "14 passed" in done.stdout, done.stdout + done.stderr


def test_what_is_written_passes_the_linter(packages):
    ruff = Path(sys.executable).parent / "ruff"
    command = [ruff, "check", "--no-cache", "--config", PROJECT / "pyproject.toml", "--ignore", "S101,I001", *packages.values()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_what_is_there_already_is_not_touched(packages):
    code, _, err = mailsec("plugin", "new", "other", "-o", str(packages["tcp"]))
    assert code == 2 and "is there already" in err and not (packages["tcp"] / "mailsec_other").exists()


def test_the_plugin_of_the_page_runs_in_the_gateway(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can write what belongs to root")
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "lookup.py").write_text(on_the_page()["mailsec_lookup/plugin.py"] + "\n\nplugin = LookupPlugin\n")
    gateway = Gateway(
        tmp_path / "gateway",
        9,
        workers=1,
        listeners=[{"name": "lookup", "service": "lookup"}],
        plugins={"enabled": ["lookup"], "path": [str(plugins)]},
    )
    try:
        gateway.start()
        with gateway.connect("lookup") as client:
            client.sendall(b"24:lookup alice@example.org,")
            assert client.recv(100) == b"12:OK encrypted,"
            client.sendall(b"25:lookup nobody@example.org,")
            assert client.recv(100) == b"9:NOTFOUND ,"
    finally:
        gateway.close()


@pytest.mark.parametrize("name", ["Upper", "1st", "a b", "../x", "", "a--b", "x" * 41])
def test_a_name_that_cannot_be_one_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert mailsec("plugin", "new", name)[0] == 2 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["rules", "socketmap"])
def test_a_name_that_another_plugin_has_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = mailsec("plugin", "new", name)
    assert code == 2 and f"there is a plugin called {name} already" in err and not list(tmp_path.iterdir())
