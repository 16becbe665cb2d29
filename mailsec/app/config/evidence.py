"""What cannot be right in `[revocation]`, and where `fetch` may go because of it."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from mailsec.app.config import models
from mailsec.app.config.lines import Path
from mailsec.app.config.problems import Problem
from mailsec.model.networks import read_network

__all__ = ["find_revocation_problems", "revocation_notes"]

_EXAMPLE = 'for example "http://ocsp.example.org/"'


def find_revocation_problems(revocation: models.Revocation, *, alone: bool = False) -> list[Problem]:
    """All contradictions in the section. `alone`: no plugin brings sources, either."""
    problems: list[Problem] = []

    def url(path: Path, text: str) -> None:
        wrong = _wrong_url(text)
        if wrong:
            problems.append(Problem(("revocation", *path), f'"{text}" {wrong}', _EXAMPLE))

    if bool(revocation.default_responder) != bool(revocation.default_responder_certificate):
        # As NSS has it: a responder for everything is believed about everything, so its certificate must be known.
        lacking = "default_responder_certificate" if revocation.default_responder else "default_responder"
        given = "default_responder" if revocation.default_responder else "default_responder_certificate"
        problems.append(Problem(("revocation", given), f'needs "{lacking}"', "a responder for everything is a URL and a certificate, both"))
    if revocation.default_responder:
        url(("default_responder",), revocation.default_responder)
        if revocation.responders:
            problems.append(
                Problem(("revocation", "responders"), 'are never asked beside "default_responder"', "take one of the two settings out")
            )
    for issuer, text in revocation.responders.items():
        url(("responders", issuer), text)
    for index, text in enumerate(revocation.crl_urls):
        url(("crl_urls", index), text)
    for index, text in enumerate(revocation.allow_networks):
        try:
            read_network(text)
        except ValueError:
            problems.append(
                Problem(("revocation", "allow_networks", index), f'"{text}" is no network', 'for example "10.1.0.0/16" or "fd00::/8"')
            )
    if not revocation.order and alone and revocation.mode != "off":
        message = f'is empty: nobody would be asked, though mode is "{revocation.mode}"'
        problems.append(Problem(("revocation", "order"), message, 'leave it out ("ocsp", then "crl"), or set mode = "off"'))
    if len(set(revocation.order)) != len(revocation.order):
        problems.append(Problem(("revocation", "order"), "names a source twice"))
    if revocation.proxy:
        wrong = _wrong_url(revocation.proxy)
        if wrong or urlsplit(revocation.proxy).scheme != "http" or urlsplit(revocation.proxy).path not in ("", "/"):
            shown = "the URL" if "@" in revocation.proxy else f'"{revocation.proxy}"'
            problems.append(
                Problem(("revocation", "proxy"), f"{shown} {wrong or 'is no proxy'}", 'for example "http://proxy.example.org:3128"')
            )
    return problems


def revocation_notes(revocation: models.Revocation) -> Sequence[str]:
    """What somebody who checks a configuration should know."""
    if revocation.proxy and revocation.mode != "off":
        return (
            (
                f"evidence is fetched through {revocation.proxy}: that proxy, not mailsec, decides which addresses may be asked; it should "
                "refuse your own networks"
            ),
        )
    return ()


def _wrong_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
        text.encode("ascii")
    except ValueError:
        return "is no URL"
    if parts.scheme not in ("http", "https") or not host:
        return "is no http or https URL"
    return "holds a password" if parts.username is not None or parts.password is not None else ""
