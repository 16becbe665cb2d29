"""A plugin finds its `[plugin.NAME]` in `settings.plugins`, read by its own model."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from mailsec.app.config import ConfigurationErrors, load_configuration
from mailsec.app.config.named_files import find_file_problems
from mailsec.app.wiring import plugin_settings
from mailsec.hookspecs import hookimpl
from mailsec.interfaces import AnyPath, File, SecretFile
from mailsec.plugins import PluginManager

BASE = """
[gateway]
hostname = "gw.example.org"
domains = ["example.org"]

[relay]
next_hop = "smtp://127.0.0.1:2525"

[plugins]
enabled = ["greeter"]
"""


class Greeting(BaseModel, extra="forbid"):
    text: str = "hello"


class Greeter:
    @hookimpl
    def register_config_models(self):
        return {"greeter": Greeting}


LISTENER = """
[[listener]]
address = "127.0.0.1:2526"
origin = "internet"
"""


def read(text: str):
    manager = PluginManager()
    manager.add(Greeter(), "greeter")
    manager.load()
    return plugin_settings(load_configuration("mailsec.toml", BASE + LISTENER + text), manager)


@pytest.mark.parametrize(("text", "greeting"), [("", "hello"), ('[plugin.greeter]\ntext = "hi"\n', "hi")])
def test_table_is_read_by_the_plugins_model(text, greeting):
    assert read(text) == {"greeter": Greeting(text=greeting)}


def test_table_that_the_model_refuses_is_an_error_with_its_line():
    with pytest.raises(ConfigurationErrors) as error:
        read('[plugin.greeter]\ntxet = "hi"\n')
    assert ["txet" in problem.message for problem in error.value.problems] == [True]


# -- files that a table names -------------------------------------------------------------------------------------------------


class Entry(BaseModel):
    key_file: SecretFile = ""


class Tables(BaseModel):
    text: str = "no/file"
    socket: AnyPath = ""
    table: File = ""
    key_file: SecretFile = ""
    several: list[File] = []
    by_name: dict[str, SecretFile] = {}
    entries: list[Entry] = []
    perhaps: SecretFile | None = None


class Tabled:
    @hookimpl
    def register_config_models(self):
        return {"greeter": Tables}


def tables(directory, text: str) -> Tables:
    manager = PluginManager()
    manager.add(Tabled(), "greeter")
    manager.load()
    (directory / "mailsec.toml").write_text(BASE + LISTENER + "[plugin.greeter]\n" + text)
    found = plugin_settings(load_configuration(str(directory / "mailsec.toml")), manager)["greeter"]
    assert isinstance(found, Tables)
    return found


def told(settings: Tables) -> dict[str, str]:
    return {
        ".".join(map(str, one.path[2:])): one.message + (f" ({one.hint})" if one.hint else "")
        for one in find_file_problems(("plugin", "greeter"), settings)
    }


def test_a_relative_path_is_taken_from_beside_the_configuration_file_wherever_one_stands(tmp_path, monkeypatch):
    (tmp_path / "etc").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = tables(
        tmp_path / "etc",
        'text = "a"\nsocket = "s"\ntable = "/t"\nkey_file = "./k"\nseveral = ["x/y"]\nby_name = {a = "b"}\nperhaps = "p"\n'
        '[[plugin.greeter.entries]]\nkey_file = "e"\n[[plugin.greeter.entries]]\n',
    )
    etc = str(tmp_path / "etc")
    assert found == Tables(
        text="a",
        socket=f"{etc}/s",
        table="/t",
        key_file=f"{etc}/k",
        several=[f"{etc}/x/y"],
        by_name={"a": f"{etc}/b"},
        entries=[Entry(key_file=f"{etc}/e"), Entry()],
        perhaps=f"{etc}/p",
    )


def test_files_that_are_not_there_are_found_wherever_they_are_named(tmp_path):
    found = told(
        tables(
            tmp_path,
            'socket = "s"\ntable = "t"\nkey_file = "k"\nseveral = ["x"]\nby_name = {a = "b"}\nperhaps = "p"\n'
            '[[plugin.greeter.entries]]\n[[plugin.greeter.entries]]\nkey_file = "e"\n',
        )
    )
    names = {"table": "t", "key_file": "k", "several.0": "x", "by_name.a": "b", "perhaps": "p", "entries.1.key_file": "e"}
    hint = "is the name right? relative ones are taken from beside the configuration file"
    assert found == {where: f"cannot read {tmp_path}/{name}: no such file or directory ({hint})" for where, name in names.items()}
    assert told(tables(tmp_path, "")) == {}


def test_a_secret_that_others_can_read_and_a_directory_are_refused(tmp_path, monkeypatch):
    for name, mode in (("open", 0o644), ("group", 0o640), ("closed", 0o600)):
        (tmp_path / name).write_text("secret\n")
        (tmp_path / name).chmod(mode)
    text = 'table = "open"\nkey_file = "open"\nby_name = {a = "group", b = "closed"}\nseveral = ["."]\n'
    assert told(tables(tmp_path, text)) == {
        "key_file": f"others may read the secret in {tmp_path}/open (chmod 600 {tmp_path}/open)",
        "by_name.a": f"others may read the secret in {tmp_path}/group (chmod 600 {tmp_path}/group)",
        "several.0": f"{tmp_path} is a directory (name a file)",
    }
    # systemd shows the access list of a credential as rights of a group
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert list(told(tables(tmp_path, text))) == ["several.0"]
