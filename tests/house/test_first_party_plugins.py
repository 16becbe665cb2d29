"""Each directory of `plugins/` is a distribution of its own, as anybody could write it: its name, its settings, its tests, and what it imports."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from mailsec.plugins import ENTRY_POINT_GROUP, PluginManager

PROJECT = Path(__file__).resolve().parents[2]
DISTRIBUTIONS = sorted(path.parent for path in (PROJECT / "plugins").glob("*/pyproject.toml"))
PUBLIC = {
    *("hookspecs", "interfaces", "model", "errors", "wire", "mime", "cms", "pki", "keys", "smime", "rules", "x509", "algorithms", "asn1"),
}
"""The rooms that every plugin may use (docs/architecture.md); its tests may use `testing`, too."""

pytestmark = pytest.mark.parametrize("place", DISTRIBUTIONS, ids=lambda path: path.name)


def imported(source: Path) -> Iterator[str]:
    """Every module that a source imports, wherever it does."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{source}: a relative import"
            yield node.module or ""
            if node.module == "mailsec":
                yield from (f"mailsec.{alias.name}" for alias in node.names)


def strangers(source: Path, package: str, public: set[str]) -> list[str]:
    """What it imports of mailsec, or of another plugin, that it may not."""
    found = []
    for module in imported(source):
        top, _, rest = module.partition(".")
        if (top == "mailsec" and rest and rest.partition(".")[0] not in public) or (top.startswith("mailsec_") and top != package):
            found.append(module)
    return found


def test_it_is_a_distribution_that_brings_one_plugin(place: Path):
    project = tomllib.loads((place / "pyproject.toml").read_text())["project"]
    short = place.name.removeprefix("mailsec-")
    package = place / f"mailsec_{short}"
    assert project["name"] == place.name and project["readme"] == "README.md" and project["license"] == "Apache-2.0"
    assert list(project["entry-points"][ENTRY_POINT_GROUP]) == [short]
    assert (package / "py.typed").exists() and (package / "__init__.py").exists()
    assert list((place / "tests").glob("test_*.py")), "it has no tests"
    # Everything in `plugins/` is on one path: a package called "tests" there would hide ours.
    assert not (place / "tests/__init__.py").exists()


def test_it_imports_what_every_plugin_may_use(place: Path):
    package = place.name.replace("-", "_")
    for source in (place / package).rglob("*.py"):
        assert not strangers(source, package, PUBLIC), source
    for source in (place / "tests").rglob("*.py"):
        assert not strangers(source, package, PUBLIC | {"testing"}), source


def test_it_is_installed_and_loads_and_its_page_tells_of_every_setting(place: Path):
    short = place.name.removeprefix("mailsec-")
    assert short in {point.name for point in entry_points(group=ENTRY_POINT_GROUP)}, "run: make install"
    manager = PluginManager()
    manager.load([short])
    page = (place / "README.md").read_text()
    assert f"plugins/{place.name}/README.md" in (PROJECT / "README.md").read_text(), "README.md does not list it"
    for name, model in dict(manager.providers("register_config_models")).items():
        assert f"[plugin.{name}]" in page
        for setting in model.model_fields:
            assert setting in page, f"README.md does not tell of {setting}"
