"""Every hook that mailsec calls, in the order in which it calls them.

Rules:

- Parameters are passed by name: take only those you use. Parameters are added, never removed or renamed.
- `register_*`, `plan_protection`, `decide_message` and `record_event` are synchronous and do no input or output. `check_configuration`,
  `startup`, `check_message`, `annotate_message` and `shutdown` may be coroutines. An async implementation of a synchronous hook is an error
  at start-up, and so is a misspelt hook or argument.
- `register_*` return objects of `mailsec.interfaces` whose methods may be async; raising there is an error at start-up.
- Order is the order of `[plugins] enabled`; built-in ones come last (`mailsec plugins --order` prints it).
- A plugin that raises, is late or answers with the wrong type defers the message (451); it never accepts it (promise 7). A plan or decision
  may be stricter than the rules, never weaker.
"""

# mypy: disable-error-code="empty-body"
from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping
from typing import TYPE_CHECKING

from pluggy import HookimplMarker, HookspecMarker

if TYPE_CHECKING:
    import click

    from mailsec.interfaces import (
        Authenticator,
        CertificateDirectory,
        CryptoBackend,
        Gateway,
        KeyStore,
        ReactorService,
        RecipientDirectory,
        RevocationSource,
        Runtime,
        TcpService,
    )
    from mailsec.model.octets import Octets, Segments
    from mailsec.model.protection import Candidates, ProtectionPlan
    from mailsec.model.session import Transaction
    from mailsec.model.settings import GatewaySettings, Problem
    from mailsec.model.verdict import Decision, Event, Finding, SmimeResult, Verdict

__all__ = ["ASYNC_HOOKS", "hookimpl", "hookspec"]

hookspec = HookspecMarker("mailsec")
hookimpl = HookimplMarker("mailsec")

ASYNC_HOOKS = frozenset({"check_configuration", "startup", "check_message", "annotate_message", "shutdown"})
"""Hooks whose implementations may be coroutines."""

# -- at start-up: say what you bring --------------------------------------------------------------------------------------------


@hookspec
def register_config_models() -> Mapping[str, type]:
    """Return the pydantic model of each `[plugin.NAME]` table that this plugin reads."""


@hookspec
def register_commands(cli: click.Group) -> None:
    """Add commands below `mailsec`."""


@hookspec
def register_crypto_backends(gateway: Gateway) -> Iterable[CryptoBackend]:
    """Return engines for public-key and bulk operations; the first that can do a thing is asked."""


@hookspec
def register_key_stores(settings: GatewaySettings, runtime: Runtime) -> Iterable[KeyStore]:
    """Return stores that hold private keys."""


@hookspec
def register_authenticators(settings: GatewaySettings, runtime: Runtime) -> Iterable[Authenticator]:
    """Return objects that say who is there, and which addresses they may use."""


@hookspec
def register_certificate_directories(settings: GatewaySettings, runtime: Runtime) -> Iterable[CertificateDirectory]:
    """Return places to look up a correspondent's certificate."""


@hookspec
def register_recipient_directories(settings: GatewaySettings, runtime: Runtime) -> Iterable[RecipientDirectory]:
    """Return objects that know whether an address exists."""


@hookspec
def register_revocation_sources(settings: GatewaySettings, runtime: Runtime) -> Iterable[RevocationSource]:
    """Return sources of OCSP responses and CRLs; the core judges what they bring, at an explicit instant."""


@hookspec
def register_tcp_services(gateway: Gateway) -> Iterable[TcpService | ReactorService]:
    """Return protocols that a `[[listener]]` may name in `service`."""


@hookspec
def check_configuration(gateway: Gateway) -> Iterable[Problem] | Awaitable[Iterable[Problem] | None] | None:
    """Say what of your settings cannot work here: a key that nobody has, a file that holds something else.

    Asked by `mailsec check`, before `serve` starts anything and before a reload, when every provider is registered. There is no network, and
    what is opened here is closed here: the work is done by other processes. Raise a MailsecError that is temporary where it cannot be said now.
    """


@hookspec
def startup(gateway: Gateway) -> Awaitable[None] | None:
    """Called once, when every provider is registered and before any port is opened."""


# -- for each message -----------------------------------------------------------------------------------------------------------


@hookspec
def check_message(
    transaction: Transaction, original: Octets, smime: SmimeResult | None
) -> Finding | Iterable[Finding] | Awaitable[Finding | Iterable[Finding] | None] | None:
    """Look at one message and report what you see; never decide.

    `original` are the octets as received, before anything was stripped; `smime` is what the S/MIME layers showed (None on the outbound path).
    """


@hookspec
def plan_protection(
    transaction: Transaction, candidates: Candidates, findings: tuple[Finding, ...], plan: ProtectionPlan | None
) -> ProtectionPlan | None:
    """Choose how the message is protected for one recipient.

    Called in order; `plan` is what the rules chose (None where they have not been asked yet). None: no opinion. A weaker plan than the rules'
    is refused and counts as a failure of the plugin.
    """


@hookspec
def decide_message(transaction: Transaction, verdict: Verdict | None, findings: tuple[Finding, ...]) -> Decision | None:
    """Say what is to happen; the strictest decision of all counts. None: no opinion."""


@hookspec
def annotate_message(
    transaction: Transaction, verdict: Verdict | None, segments: Segments
) -> Iterable[tuple[str, str]] | Awaitable[Iterable[tuple[str, str]] | None] | None:
    """Return header fields (name, value) to add on top of the message as it leaves, our own fields already added."""


# -- afterwards -----------------------------------------------------------------------------------------------------------------


@hookspec
def record_event(event: Event) -> None:
    """See every audit event; must not block and must not raise."""


@hookspec
def shutdown(gateway: Gateway) -> Awaitable[None] | None:
    """Called once, after the last connection has closed; close what `startup` opened."""
