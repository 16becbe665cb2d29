"""The configuration: documented models, their reading with all mistakes at once, and the settings that the rooms below are given."""

from mailsec.app.config.load import Configuration, load_configuration
from mailsec.app.config.problems import ConfigurationErrors, Problem
from mailsec.app.config.settings import gateway_settings

__all__ = ["Configuration", "ConfigurationErrors", "Problem", "gateway_settings", "load_configuration"]
