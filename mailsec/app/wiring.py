"""What is made of `[[rule]]`, `[plugins]` and `[plugin.NAME]`: compiled rules, loaded plugins, checked tables of plugins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from mailsec.app.config import Configuration
from mailsec.app.config.base import beside
from mailsec.app.config.load import describe
from mailsec.app.config.models import Rule as RuleModel
from mailsec.app.config.named_files import find_file_problems
from mailsec.app.config.problems import Problem
from mailsec.errors import ConfigurationError
from mailsec.interfaces import Runtime
from mailsec.plugins import PluginManager, find_files, import_plugins
from mailsec.rules.ruleset import CONCERNS, WORDS, Rule, RuleSet, compile_rule

__all__ = ["compile_rules", "find_plugin_problems", "load_plugins", "plugin_settings"]

NONE_OFF: Final[Mapping[str, str]] = MappingProxyType({})


def compile_rules(configuration: Configuration) -> RuleSet:
    """The rules in their order; raise ConfigurationErrors with every one that cannot be used."""
    rules, problems = _compile(configuration)
    if problems:
        raise configuration.errors(problems)
    return RuleSet(rules)


def load_plugins(
    configuration: Configuration,
    built_in: Sequence[tuple[str, object]] = (),
    runtime: Runtime | None = None,
    off: Mapping[str, str] = NONE_OFF,
) -> PluginManager:
    """The manager with the built-in plugins and the enabled ones; raise ConfigurationError for one that cannot be loaded.

    `off` are plugins that are not asked, and why.
    """
    manager = PluginManager(runtime)
    for name, why in off.items():
        manager.switch_off(name, why)
    for name, plugin in built_in:
        manager.add(plugin, name)
    manager.load(configuration.plugins.enabled, configuration.plugins.path)
    return manager


def plugin_settings(configuration: Configuration, manager: PluginManager) -> dict[str, BaseModel]:
    """`[plugin.NAME]` of the loaded plugins, each as its model reads it, absent tables with their defaults; raise ConfigurationError."""
    found: dict[str, BaseModel] = {}
    for name, model in dict(manager.providers("register_config_models")).items():
        try:
            found[name] = model.model_validate(configuration.plugin_tables.get(name, {}), context=beside(configuration.path))
        except ValidationError as error:
            raise configuration.errors([describe(model, ("plugin", name), detail) for detail in error.errors(include_url=False)]) from error
    return found


def find_plugin_problems(configuration: Configuration) -> list[Problem]:
    """Rules that cannot be used, plugins that cannot be loaded, and tables that their plugins refuse."""
    problems = _compile(configuration)[1]
    plugins = configuration.plugins
    try:
        find_files(plugins.path)
    except ConfigurationError as error:
        return [*problems, Problem(("plugins", "path"), error.message, error.hint)]
    try:
        manager = load_plugins(configuration)
        models: dict[str, type[BaseModel]] = dict(manager.providers("register_config_models"))
    except ConfigurationError as error:
        told = [Problem(("plugins", "enabled"), error.message, error.hint)]
        return [*problems, *(_each_plugin(plugins.enabled, plugins.path) or told)]
    # How a plugin calls its sources is known when they are made; without any plugin that has some, a name is a mistake.
    if not manager.order().get("register_revocation_sources"):
        for index, name in enumerate(configuration.revocation.order):
            if name not in ("ocsp", "crl"):
                hint = '"ocsp" and "crl" are built in; for others name their plugin in [plugins] enabled'
                problems.append(Problem(("revocation", "order", index), f'no enabled plugin brings a source called "{name}"', hint))
    for name, table in configuration.plugin_tables.items():
        model = models.get(name)
        if model is None and name not in plugins.enabled:
            continue  # `semantics` has said that it is not enabled
        if model is None:
            problems.append(Problem(("plugin", name), f"the plugin {name} reads no settings of this name"))
            continue
        try:
            settings = model.model_validate(table, context=beside(configuration.path))
        except ValidationError as error:
            problems.extend(describe(model, ("plugin", name), detail) for detail in error.errors(include_url=False))
        else:
            problems.extend(find_file_problems(("plugin", name), settings))
    return problems


def _each_plugin(names: Sequence[str], paths: Sequence[str]) -> list[Problem]:
    """What is wrong with each of several plugins, where the first one has stopped the others."""
    problems = []
    for index, name in enumerate(names):
        try:
            import_plugins((name,), paths)
        except ConfigurationError as error:
            problems.append(Problem(("plugins", "enabled", index), error.message, error.hint))
    return problems


def _compile(configuration: Configuration) -> tuple[list[Rule], list[Problem]]:
    rules, problems = [], []
    for index, rule in enumerate(configuration.rules):
        try:
            rules.append(_rule(rule))
        except ConfigurationError as error:
            problems.append(Problem(("rule", index), error.message, error.hint))
    return rules, problems


def _rule(rule: RuleModel) -> Rule:
    # What a match leaves out matches everything; an empty list would match nothing.
    match: dict[str, Any] = {name: value for name, value in rule.match.model_dump().items() if value}
    words = {name: _text(getattr(rule, name)) for name in (*CONCERNS, *WORDS, "signer", "profile")}
    return compile_rule(rule.name, match, **words)


def _text(value: str | bool | None) -> str:
    return value if isinstance(value, str) else "" if value is None else "yes" if value else "no"
