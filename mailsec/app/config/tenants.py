"""Listeners for servers that many tenants share: the secret in a header field, and what cannot be right about it."""

from __future__ import annotations

import re
from pathlib import Path

from mailsec.app.config import models
from mailsec.app.config.addresses import parse_endpoint
from mailsec.app.config.problems import Problem
from mailsec.app.files import reason_of
from mailsec.errors import ConfigurationError
from mailsec.model.address import normalise_domain

__all__ = ["find_tenant_problems", "read_secrets"]

_NAME = re.compile(r"X-[A-Za-z0-9-]{1,60}")
_SECRET = re.compile(rb"[!-~]{20,500}")
_MOST_OCTETS = 16 * 1024
_SHARED = ("outlook.com", "google.com")
"""Services that show one certificate for the mail of all their customers."""


def read_secrets(path: str) -> tuple[bytes, ...]:
    """The secrets in a file, one on each line. Raise ConfigurationError, which repeats none of them."""
    try:
        with Path(path).open("rb") as file:
            octets = file.read(_MOST_OCTETS)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {reason_of(error)}", stage="configuration") from error
    lines = [line.strip() for line in octets.splitlines() if line.strip()]
    if not lines or not all(map(_SECRET.fullmatch, lines)):
        raise ConfigurationError(
            f"{path} holds no secret that mailsec takes, or something else beside it",
            hint="20 signs or more on a line, ASCII without blanks: openssl rand -hex 20",
            stage="configuration",
        )
    return tuple(lines)


def find_tenant_problems(index: int, listener: models.Listener) -> list[Problem]:
    """All contradictions about secrets in one listener."""
    problems: list[Problem] = []

    def problem(field: str, message: str, hint: str = "") -> None:
        problems.append(Problem(("listener", index, field), message, hint))

    if bool(listener.secret_header) != bool(listener.secret_file):
        problem("secret_header" if listener.secret_header else "secret_file", "secret_header and secret_file need each other")
    if listener.secret_header:
        if listener.origin != "trusted":
            problem("secret_header", "is for trusted listeners")
        if not _NAME.fullmatch(listener.secret_header):
            problem("secret_header", f'"{listener.secret_header}" is no name for it', 'X- and letters: "X-Example-Secret"')
        if listener.tls in ("none", "starttls") and not _is_local(listener):
            problem("secret_header", "the secret could come in clear", 'set tls = "starttls-required" or "implicit"')
    elif listener.origin == "trusted":
        for name in listener.client_names:
            if _is_shared(name):
                problem(
                    "client_names",
                    f'open relay: "{name}" is the name of all tenants of that service',
                    "have it add a header field with a secret to your mail, and set secret_header and secret_file",
                )
    return problems


def _is_local(listener: models.Listener) -> bool:
    try:
        return parse_endpoint(listener.address).local
    except ValueError:
        return True  # what is wrong with it is told there


def _is_shared(name: str) -> bool:
    domain = normalise_domain(name)
    return any(domain == one or domain.endswith("." + one) for one in _SHARED)
