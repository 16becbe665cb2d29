"""A plugin finds its `[plugin.NAME]` in `settings.plugins`, read by its own model."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from mailsec.app.config import ConfigurationErrors, load_configuration
from mailsec.app.wiring import plugin_settings
from mailsec.hookspecs import hookimpl
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
