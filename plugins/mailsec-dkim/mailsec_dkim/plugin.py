"""The plugin: findings and results on what arrives, signatures on what leaves.

The one invariant: who is not known is not signed for, and a signature that cannot be made defers the message rather than send it without.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

from mailsec.errors import ConfigurationError, KeyUnavailable, MailsecError, UsageError
from mailsec.hookspecs import hookimpl
from mailsec.interfaces import Gateway, KeyHandle, KeyStore, Runtime
from mailsec.keys.files import load_private_key
from mailsec.keys.reference import parse_reference
from mailsec.keys.software import SoftwareKey
from mailsec.model.limits import DEFAULT_LIMITS
from mailsec.model.octets import Octets, Segments
from mailsec.model.session import Transaction
from mailsec.model.settings import GatewaySettings, Problem
from mailsec.model.verdict import Finding
from mailsec_dkim.record import WEAK_BITS
from mailsec_dkim.result import Result, as_finding, results_value
from mailsec_dkim.settings import DkimSettings, SigningKey
from mailsec_dkim.sign import FIELD, body_hash, header_of, mechanism_of, signature_value
from mailsec_dkim.verify import author_domain, verify_message

__all__ = ["DkimPlugin"]

_REMEMBERED = 2000


class DkimPlugin:
    """What `[plugins] enabled = ["dkim"]` brings."""

    def __init__(self) -> None:
        self._settings = DkimSettings()
        self._gateway: Gateway | None = None
        self._runtime: Runtime | None = None
        self._files: dict[str, KeyHandle] = {}
        self._form = self._settings.form()
        self._limits = DEFAULT_LIMITS
        self._seen: OrderedDict[str, Sequence[Result]] = OrderedDict()
        """What was found in messages whose fields are still to be added, by transaction."""

    @hookimpl
    def register_config_models(self) -> Mapping[str, type]:
        """`[plugin.dkim]`."""
        return {"dkim": DkimSettings}

    @hookimpl
    def register_key_stores(self, settings: GatewaySettings, runtime: Runtime) -> Sequence[KeyStore]:
        """None: it is told here of its settings and its runtime, also where no port is going to be opened (`mailsec explain`)."""
        given = settings.plugins.get("dkim")
        if isinstance(given, DkimSettings):
            self._settings = given
        self._form = self._settings.form()
        self._runtime = runtime
        self._limits = settings.limits
        return ()

    @hookimpl
    async def check_configuration(self, gateway: Gateway) -> list[Problem]:
        """Look at every key, so that a mistake shows before anything is started."""
        problems = []
        for index, one in enumerate(self._settings.sign):
            try:
                await _opened(gateway, one)
            except KeyUnavailable:
                continue  # a token that is out: mail waits for it
            except (ConfigurationError, UsageError) as error:
                problems.append(Problem(("sign", index, "key_file" if one.key_file else "key"), error.message, error.hint))
        return problems

    @hookimpl
    async def startup(self, gateway: Gateway) -> None:
        """Open the files. Raise ConfigurationError where a key has changed since it was checked, and cannot be used."""
        for one in self._settings.sign:
            try:
                handle = await _opened(gateway, one)
            except KeyUnavailable:
                continue
            if one.key_file:
                self._files[one.key_file] = handle
        self._gateway = gateway

    # -- what arrives -----------------------------------------------------------------------------------------------------------

    @hookimpl
    async def check_message(self, transaction: Transaction, original: Octets) -> list[Finding]:
        """A finding for each signature, over the octets as they were received."""
        settings, runtime = self._settings, self._runtime
        if runtime is None or not settings.checks(transaction.session.origin):
            return []
        results = await verify_message(original, runtime, self._limits, most=settings.max_signatures, dns_seconds=settings.dns_seconds)
        if settings.results and self._gateway is not None:
            self._seen[transaction.id] = results
            while len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
        return [as_finding(one) for one in results]

    # -- what leaves ------------------------------------------------------------------------------------------------------------

    @hookimpl
    async def annotate_message(self, transaction: Transaction, segments: Segments) -> list[tuple[str, str]]:
        """Results on what arrives, signatures on what leaves. Raise KeyUnavailable, CryptoError: the message is deferred."""
        gateway = self._gateway
        if gateway is None:
            return []  # `mailsec explain`: nothing is signed
        if not transaction.session.origin.outbound:
            # several groups of recipients have one message: what was found stays for the next
            found = self._seen.get(transaction.id)
            return [("Authentication-Results", results_value(gateway.settings.authserv_id, found))] if found else []
        settings = self._settings
        # Attack: mail from elsewhere with a null MAIL FROM through our own MTA. Nobody answers for it, and its From may be anybody's.
        if not settings.sign or transaction.session.identity is None or transaction.session.origin.value not in settings.sign_origins:
            return []
        limits = gateway.settings.limits
        header = header_of(segments, limits)
        keys = settings.keys_for(author_domain(header, limits))
        if not keys:
            return []
        digest = await body_hash(segments, header.body_start, gateway.runtime, limits, relaxed=self._form.relaxed_body)
        now = int(gateway.runtime.now().timestamp())
        fields = []
        for one in keys:
            handle = await self._handle(gateway, one)
            if handle is None:
                raise KeyUnavailable(f"there is no key called {one.key}", hint='"mailsec key list" shows what there is')
            value = await signature_value(header, digest, handle, domain=one.domain, selector=one.selector, form=self._form, now=now)
            fields.append((FIELD, value))
        return fields

    async def _handle(self, gateway: Gateway, one: SigningKey) -> KeyHandle | None:
        return self._files[one.key_file] if one.key_file else await gateway.key(one.key)


async def _opened(gateway: Gateway, one: SigningKey) -> KeyHandle:
    """The key. Raise KeyUnavailable where its token is out, ConfigurationError where it is not there, or no key to sign with."""
    handle = _from_file(one) if one.key_file else await gateway.key(one.key)
    if handle is None:
        why, hint = f"there is no key called {one.key}", '"mailsec key list" shows what there is'
        if parse_reference(one.key).token:
            raise KeyUnavailable(why, hint=hint)
        raise ConfigurationError(why, hint=hint)
    _demand_fit(one, handle)
    return handle


def _from_file(one: SigningKey) -> KeyHandle:
    try:
        return SoftwareKey(f"file:{one.key_file}", load_private_key(Path(one.key_file).read_bytes(), None))
    except OSError as error:
        hint = "it must be readable for the user that mailsec runs as, and for nobody else"
        raise ConfigurationError(f"{one.key_file} cannot be read: {error.strerror}", hint=hint) from None
    except MailsecError as error:
        raise ConfigurationError(f"{one.key_file}: {error.message}", hint=error.hint) from None


def _demand_fit(one: SigningKey, handle: KeyHandle) -> None:
    try:
        mechanism_of(handle)
    except MailsecError as error:
        raise ConfigurationError(error.message, hint=error.hint) from None
    if handle.key_type == "rsa" and handle.bits < WEAK_BITS:
        # RFC 8301 §3.2: signers must use 1024 bits at least, and should use 2048
        raise ConfigurationError(f"the key of {one.selector}._domainkey.{one.domain} has only {handle.bits} bits", hint="2048 are usual")
