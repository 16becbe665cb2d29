"""Plugins: how they are found and imported, who answers each hook in which order, and how an answer that goes wrong is contained."""

from __future__ import annotations

from mailsec.plugins.answers import Answer, Implementation, is_cancellation
from mailsec.plugins.files import find_files
from mailsec.plugins.loading import ENTRY_POINT_GROUP, HOOKS, import_plugins
from mailsec.plugins.manager import PluginManager

__all__ = ["ENTRY_POINT_GROUP", "HOOKS", "Answer", "Implementation", "PluginManager", "find_files", "import_plugins", "is_cancellation"]
