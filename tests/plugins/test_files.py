"""Plugins that are single files (`[plugins] path`): only enabled ones are imported, and only what nobody but root can have written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mailsec.errors import ConfigurationError
from mailsec.plugins import PluginManager

PLUGIN = """
from mailsec.hookspecs import hookimpl

@hookimpl
def decide_message(findings):
    return None
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can write what belongs to root")


def load(directory: Path, *names: str) -> PluginManager:
    manager = PluginManager()
    manager.load(names, [str(directory)])
    return manager


@pytest.fixture
def directory(tmp_path) -> Path:
    made = tmp_path / "plugins"
    made.mkdir(mode=0o755)
    (made / "house.py").write_text(PLUGIN)
    (made / "other.py").write_text("raise AssertionError('it is not enabled')")
    return made


def test_a_file_is_a_plugin_by_its_name_and_others_are_not_imported(directory):
    assert load(directory, "house").order()["decide_message"] == ("house",)
    assert not list(directory.rglob("__pycache__"))


def test_a_class_called_plugin_is_made(directory):
    (directory / "house.py").write_text("from mailsec.hookspecs import hookimpl\nclass plugin:\n @hookimpl\n def startup(self): ...\n")
    assert load(directory, "house").order()["startup"] == ("house",)


@pytest.mark.parametrize("what", ["file", "directory", "parent"])
def test_attack_what_somebody_else_could_have_written_is_not_run(directory, what):
    changed = {"file": directory / "house.py", "directory": directory, "parent": directory.parent}[what]
    (directory / "house.py").write_text("raise AssertionError('it was run')")
    mode = changed.stat().st_mode
    for change in (lambda: changed.chmod(mode | 0o020), lambda: changed.chmod(mode | 0o002), lambda: os.chown(changed, 65534, 0)):
        change()
        with pytest.raises(ConfigurationError, match=f"plugin house: {changed} (can be written|does not belong)") as caught:
            load(directory, "house")
        assert caught.value.hint.endswith(str(changed))
        changed.chmod(mode)


def test_attack_a_link_in_a_directory_of_somebody_else_is_a_way_that_they_could_turn_round(directory, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "link").symlink_to(directory)
    assert load(elsewhere / "link", "house").order()["decide_message"] == ("house",)
    os.chown(elsewhere, 65534, 0)
    with pytest.raises(ConfigurationError, match="elsewhere does not belong to root"):
        load(elsewhere / "link", "house")


def test_attack_a_link_of_root_leads_to_a_link_of_somebody_else(directory, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "link").symlink_to(directory)
    (tmp_path / "plugins of root").symlink_to(elsewhere / "link")
    assert load(tmp_path / "plugins of root", "house").order()["decide_message"] == ("house",)
    os.chown(elsewhere, 65534, 0)
    with pytest.raises(ConfigurationError, match="elsewhere does not belong to root"):
        load(tmp_path / "plugins of root", "house")


def test_attack_a_link_that_somebody_has_laid_into_a_shared_directory(directory):
    # anybody may put a name into a directory with the sticky bit, and choose among the files of root's what is run
    directory.chmod(0o1777)
    (directory / "chosen.py").symlink_to(directory / "house.py")
    os.chown(directory / "chosen.py", 65534, 65534, follow_symlinks=False)
    with pytest.raises(ConfigurationError, match=r"chosen\.py does not belong to root"):
        load(directory, "chosen")


def test_links_that_go_in_a_circle_are_told(directory):
    (directory / "one.py").symlink_to(directory / "two.py")
    (directory / "two.py").symlink_to("one.py")
    with pytest.raises(ConfigurationError, match=r"one\.py cannot be read: Too many levels"):
        load(directory, "one")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("def", "SyntaxError"),
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        ("\0", ""),
    ],
)
def test_a_file_that_cannot_be_imported_is_a_configuration_error(directory, text, why):
    (directory / "house.py").write_text(text)
    with pytest.raises(ConfigurationError, match=f"house cannot be imported: .*{why}"):
        load(directory, "house")


def test_what_is_no_file_of_python_is_refused(directory):
    os.mkfifo(directory / "pipe.py")
    with pytest.raises(ConfigurationError, match="no file of Python"):
        load(directory, "pipe")


def test_a_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="nowhere: No such file"):
        load(tmp_path / "nowhere", "house")


def test_a_name_that_is_installed_too_is_refused(directory, monkeypatch):
    class Point:
        name = "house"

    monkeypatch.setattr("mailsec.plugins.loading.entry_points", lambda group: [Point()])
    with pytest.raises(ConfigurationError, match="there are two plugins called house"):
        load(directory, "house")


def test_a_misspelt_name_is_guessed_among_files_too(directory):
    with pytest.raises(ConfigurationError) as caught:
        load(directory, "hose")
    assert caught.value.hint == "did you mean house?"
