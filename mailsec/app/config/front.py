"""What stands in front of a listener and speaks for its clients: proxies and mail servers; and what cannot be right about them."""

from __future__ import annotations

import ipaddress
import pwd
from typing import TYPE_CHECKING

from pydantic import Field

from mailsec.app.config.base import Section, Several
from mailsec.app.config.lines import Path
from mailsec.app.config.problems import Problem
from mailsec.model.settings import FrontSettings

if TYPE_CHECKING:
    from mailsec.app.config.models import Listener

__all__ = ["Front", "find_front_problems", "front_settings"]


class Front(Section):
    """Who may say that a client is somebody else than it seems."""

    proxies: Several = Field(default_factory=list)
    """Networks of proxies that send a PROXY header (version 1 or 2), as HAProxy does with send-proxy. Nobody else may connect then, and who
    sends no header is cut off."""
    xclient: bool = False
    """Take XCLIENT and XFORWARD from a mail server in front, as Postfix sends them: from one of `xclient_users` on a unix socket, or from who
    shows one of the certificates that `client_names` or `client_fingerprints` of the listener name."""
    xclient_users: Several = Field(default_factory=list)
    """For a unix socket: the users (names or numbers) of this machine that the mail server runs as."""
    xclient_login: bool = False
    """Believe the LOGIN of XCLIENT, too: the mail server in front has checked the password."""


def front_settings(front: Front) -> FrontSettings:
    """As the rooms below see it."""
    uids = tuple(uid for user in front.xclient_users if (uid := _uid(user)) is not None)
    return FrontSettings(tuple(front.proxies), front.xclient, uids, front.xclient_login)


def find_front_problems(index: int, listener: Listener, unix: bool) -> list[Problem]:
    """All contradictions in `front` of one listener. `unix`: it listens on a unix socket."""
    front, problems = listener.front, []

    def problem(name: str, message: str, hint: str = "") -> None:
        problems.append(Problem(("listener", index, "front", name), message, hint))

    if "front" in listener.model_fields_set and front == Front():
        problems.append(
            Problem(
                ("listener", index, "front"),
                "says nothing of what stands in front",
                'proxies = ["192.0.2.7"] or xclient = true; or take it out',
            )
        )
    for number, text in enumerate(front.proxies):
        path: Path = ("listener", index, "front", "proxies", number)
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            problems.append(Problem(path, f'"{text}" is no network', 'for example "192.0.2.7" or "10.1.0.0/24"'))
            continue
        if network.prefixlen < (16 if network.version == 4 else 32):
            problems.append(
                Problem(path, f'"{text}" takes strangers for proxies: each could be whoever it likes', "name the addresses of your own")
            )
    if front.proxies and unix:
        problem("proxies", "is for addresses; who may open a unix socket is not asked for a header")
    if not front.xclient:
        for name in ("xclient_users", "xclient_login"):
            if getattr(front, name):
                problem(name, "is nothing without xclient", "set xclient = true")
        return problems
    if listener.protocol == "pop3" or listener.service:
        problem("xclient", "is for smtp and lmtp")
    certified = listener.client_certificates in ("optional", "required") and bool(listener.client_names or listener.client_fingerprints)
    if unix and not front.xclient_users:
        problem("xclient", "whose processes may use it?", 'for example xclient_users = ["postfix"]')
    elif not unix and not certified:
        hint = "a unix socket with xclient_users, or client_certificates with client_names or client_fingerprints"
        problem("xclient", "strangers could be whoever they like", hint)
    if front.xclient_users and not unix:
        problem("xclient_users", "is for unix sockets: only there is known who speaks")
    for number, user in enumerate(front.xclient_users):
        if _uid(user) is None:
            problems.append(Problem(("listener", index, "front", "xclient_users", number), f'there is no user "{user}"'))
    if front.xclient_login and listener.origin != "submission":
        problem("xclient_login", "is for the origin submission: elsewhere nobody logs in")
    return problems


def _uid(user: str) -> int | None:
    if user.isascii() and user.isdigit():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None
