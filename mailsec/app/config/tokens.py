"""What cannot be right in `[[module]]` and `[passphrase]`, and where a module's library and socket are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mailsec.app.config import models
from mailsec.app.config.lines import Path as Place
from mailsec.app.config.problems import Problem
from mailsec.errors import MailsecError
from mailsec.keys.reference import parse_reference

__all__ = ["find_token_problems", "host_socket", "is_name"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]*\Z")
_NEEDS = {"file": "file", "defer": "file", "exec": "command"}


def is_name(name: str) -> bool:
    """True for what a module may be called: its socket and its files are called by it."""
    return len(name) <= 64 and _NAME.match(name) is not None


def find_token_problems(sections: Mapping[str, Any]) -> list[Problem]:
    """All contradictions in the two sections."""
    problems: list[Problem] = []
    if sections["passphrase"] is not None:
        _passphrase(sections["passphrase"], problems)
    if sections["database"] is not None and sections["database"].location.startswith("nss:"):
        directory = sections["database"].location.removeprefix("nss:")
        problems.append(
            Problem(
                ("database", "location"),
                "an NSS database has no place for what a gateway keeps (users, settings of partners, learnt certificates)",
                f'use its keys with [[module]] nss = "{directory}"; `mailsec db merge nss:{directory}` copies certificates and trust',
            )
        )
    modules: Sequence[models.Module | None] = sections["module"]
    names: dict[str, int] = {}
    for index, module in enumerate(modules):
        if module is None:
            continue
        _module(index, module, problems)
        first = names.setdefault(module.name, index)
        if first != index:
            problems.append(
                Problem(("module", index, "name"), f'there is another [[module]] called "{module.name}"', "give it another name")
            )
    nss = [index for index, module in enumerate(modules) if module is not None and module.enabled and module.nss]
    if len(nss) > 1:
        hint = 'write them as one: nss = ["DIR", "DIR"]'
        problems.append(Problem(("module", nss[1], "nss"), "another [[module]] has NSS databases already", hint))
    return problems


def _passphrase(passphrase: models.Passphrase, problems: list[Problem]) -> None:
    method, needed = passphrase.method, _NEEDS.get(passphrase.method, "")
    if needed and not getattr(passphrase, needed):
        problems.append(Problem(("passphrase", "method"), f'"{method}" needs the setting "{needed}"'))
    for setting in ("file", "command"):
        if getattr(passphrase, setting) and setting != needed:
            hint = 'set method = "file"' if setting == "file" else 'set method = "exec"'
            problems.append(Problem(("passphrase", setting), f'is not used by the method "{method}"', hint))


def _module(index: int, module: models.Module, problems: list[Problem]) -> None:
    def problem(field: str, message: str, hint: str = "") -> None:
        problems.append(Problem(("module", index, field) if field else ("module", index), message, hint))

    if not is_name(module.name):
        problem("name", f'"{module.name}" is no name', "letters, digits, blanks, dots and hyphens")
    if module.host:
        if not module.host.startswith("unix:/"):
            problem("host", f'"{module.host}" is no socket', 'for example "unix:/run/mailsec-hsm/token.sock"')
    elif module.library and module.nss:
        problem("nss", 'and "library" exclude each other', "NSS databases are opened by NSS's own library")
    elif not module.library and not module.nss:
        problem("", 'needs "library", "nss" or "host"')
    if module.parameters and module.nss:
        problem("parameters", 'and "nss" exclude each other', 'write the whole string, with "library"')
    for number, name in enumerate(module.tokens):
        place: Place = ("module", index, "tokens", number)
        if not name or name != name.rstrip(" "):
            problems.append(Problem(place, f'"{name}" is no name of a token', "names are written without the blanks that fill them up"))
        elif name.lower().startswith("pkcs11:"):
            try:
                if not parse_reference(name).token:
                    problems.append(Problem(place, f'"{name}" names no token', "as in pkcs11:token=HSM%201;serial=42"))
            except MailsecError as error:
                problems.append(Problem(place, error.message, error.hint))


def host_socket(module: models.Module, run_directory: str) -> str:
    """The path of the socket where the token host of a module listens."""
    if module.host:
        return module.host.removeprefix("unix:")
    return str(Path(run_directory) / f"token-{re.sub('[^A-Za-z0-9._-]', '_', module.name)}.sock")
