"""docs/write-a-plugin.md: the code on the page is written out as it stands there, is short, passes its own tests, and runs in the gateway."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.peers.gateway import Gateway

PROJECT = Path(__file__).resolve().parents[2]
PAGE = (PROJECT / "docs/write-a-plugin.md").read_text()
KINDS = ["tcp", "revocation", "directory", "accelerator", "policy"]


def on_the_page() -> Mapping[str, str]:
    """Path to source of each block of Python, whose first line names its file."""
    return dict(re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))


def run_tests(place: Path) -> None:
    """The tests of a package that is not installed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(place), str(place / "tests")]
    environment = {**os.environ, "PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout + done.stderr


def lint(place: Path) -> None:
    ruff = Path(sys.executable).parent / "ruff"
    command = [ruff, "check", "--no-cache", "--config", PROJECT / "pyproject.toml", "--ignore", "S101,I001", place]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def tutorial(tmp_path) -> Path:
    for path, source in on_the_page().items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(source)
    return tmp_path


def test_the_plugin_of_the_page_is_short_and_passes_the_contracts(tutorial):
    source = on_the_page()["mailsec_lookup/plugin.py"]
    assert len(source.strip().splitlines()) < 80
    assert "check_tcp_service" in on_the_page()["tests/test_plugin.py"]
    run_tests(tutorial)


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


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_of_each_kind_passes_its_test(kind, tmp_path):
    place = tmp_path / "made"
    command = [sys.executable, "-m", "mailsec", "plugin", "new", f"my-{kind}", "--kind", kind, "-o", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "pytest" in done.stdout, done.stderr
    assert f"`{kind}`" in PAGE or f"--kind {kind}" in PAGE
    lint(place)
    run_tests(place)
    again = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert again.returncode == 2 and "is there already" in again.stderr


@pytest.mark.parametrize("name", ["Upper", "1st", "a b", "../x", "", "a--b", "x" * 41])
def test_a_name_that_cannot_be_one_is_refused(name, tmp_path):
    command = [sys.executable, "-m", "mailsec", "plugin", "new", name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and not list(tmp_path.iterdir())
