"""The path options that commands share (`cert verify`, `ocsp verify`): anchors, helpful certificates, lists, policies, the instant.

Files come from the command line, anchors also from a database where one was named. Invariant: what `--intermediate` and `--crl` bring is
never believed for being brought; a certificate given with `--anchor` is an anchor only if it is self-signed (or nobody can tell, as nothing
is computed with its key: then that is said of all below it), or with `--partial-chain`.
"""

from __future__ import annotations

import base64
import binascii
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mailsec.app.options import DatabaseChoice, database_options
from mailsec.errors import InputError, UsageError

if TYPE_CHECKING:
    from mailsec.app.output import Output
    from mailsec.interfaces import CryptoBackend, Evidence, EvidenceRequest
    from mailsec.model.trust import Anchor
    from mailsec.model.verdict import Reason
    from mailsec.pki.evidence import RevocationEvidence
    from mailsec.pki.path import PathOptions
    from mailsec.x509.certificate import Certificate

__all__ = [
    "PathInputs",
    "certificate_value",
    "crl_option",
    "path_options",
    "policy_oids",
    "policy_options",
    "read_ders",
    "reason_value",
    "tell_reasons",
]

F = TypeVar("F", bound=Callable[..., Any])

_FILE_PURPOSES = ("email", "tls-server", "tls-client")


@dataclass(frozen=True, slots=True)
class PathInputs:
    """What the options said, as text; the methods read it."""

    anchors: tuple[str, ...] = ()
    intermediates: tuple[str, ...] = ()
    crls: tuple[str, ...] = ()
    partial_chain: bool = False
    allow_legacy: bool = False
    at: str = ""
    database: DatabaseChoice = field(default_factory=DatabaseChoice)

    def instant(self) -> datetime:
        """`--at`, or now."""
        if not self.at:
            return datetime.now(UTC)
        try:
            instant = datetime.fromisoformat(self.at)
        except ValueError:
            raise UsageError(f'"{self.at}" is no instant', hint="write 2026-01-31T12:00:00Z") from None
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)

    def trust(
        self, output: Output, backend: CryptoBackend, purpose: str = "email"
    ) -> tuple[list[Anchor], list[Certificate], frozenset[bytes]]:
        """Anchors, helpful certificates, and fingerprints of distrusted ones. `purpose` is one of the database's."""
        from mailsec.model.trust import Anchor
        from mailsec.pki.anchors import may_be_self_signed
        from mailsec.x509.certificate import load_certificate

        anchors: list[Anchor] = []
        helpful = [load_certificate(der) for path in self.intermediates for der in read_ders(path)]
        for path in self.anchors:
            for der in read_ders(path):
                certificate = load_certificate(der)
                if self.partial_chain or may_be_self_signed(certificate, backend):
                    anchors.append(Anchor(der, purposes=_FILE_PURPOSES))
                else:
                    helpful.append(certificate)
        distrusted: frozenset[bytes] = frozenset()
        if self.has_database:
            from mailsec.app.databases import open_any

            database = open_any(output, self.database, writing=False)
            try:
                anchors += database.anchors(purpose)
                helpful += [load_certificate(entry.der) for entry in database.entries()]
                distrusted = frozenset(load_certificate(der).fingerprint for der in database.distrusted(purpose))
            finally:
                database.close()
            if purpose == "email":
                anchors += [Anchor(der) for der in self._configured_anchors()]
        return anchors, helpful, distrusted

    def _configured_anchors(self) -> list[bytes]:
        """`[trust] anchor_files` of the configuration, if one was named."""
        if not self.database.configuration:
            return []
        from mailsec.app.config import load_configuration
        from mailsec.app.config.surroundings import read_anchor_file

        configuration = load_configuration(self.database.configuration)
        return [der for path in configuration.trust.anchor_files for der in read_anchor_file(path)]

    @property
    def has_database(self) -> bool:
        """Whether a database, or a configuration that has one, was named."""
        return bool(self.database.configuration or self.database.database)

    def kept(self, output: Output, requests: Sequence[EvidenceRequest]) -> Sequence[Evidence]:
        """What the database that was named, if any, has about certificates whose status is looked for."""
        if not self.has_database or not requests:
            return ()
        from mailsec.app.kept_evidence import kept_evidence

        return kept_evidence(output, self.database, requests)

    def evidence(self, kept: Sequence[Evidence] = ()) -> RevocationEvidence:
        """The lists of `--crl`, and what was kept."""
        from mailsec.pki.evidence import RevocationEvidence
        from mailsec.x509.crl import load_crl

        lists = []
        for path in self.crls:
            for der in read_ders(path, "X509 CRL"):
                crl = load_crl(der)
                if not crl.readable:
                    raise InputError(f"{path}: {crl.problems[0].message}", stage="parse")
                lists.append(crl)
        more = [item.data for item in kept if item.kind == "crl"]
        return RevocationEvidence([*lists, *more], [item.data for item in kept if item.kind == "ocsp"])

    def options(self, **more: Any) -> PathOptions:
        """The rest, for `pki.path.validate`."""
        from mailsec.algorithms.profiles import PROFILES
        from mailsec.pki.path import PathOptions

        return PathOptions(profile=PROFILES["legacy" if self.allow_legacy else "default"], **more)


def path_options(command: F) -> F:
    """Add the options; the command gets them as one argument `paths`, a PathInputs."""

    @click.option(
        "--anchor", "anchors", metavar="FILE", multiple=True, help="Certificates of authorities that are believed; may be repeated."
    )
    @click.option("--intermediate", "intermediates", metavar="FILE", multiple=True, help="Certificates that help to build a path.")
    @click.option("--partial-chain", is_flag=True, help="An --anchor need not be self-signed.")
    @click.option("--allow-legacy", is_flag=True, help="Accept digests and keys of the past.")
    @click.option("--at", metavar="RFC3339", default="", help="The instant of the judgement, as in 2026-01-31T12:00:00Z  [default: now]")
    @database_options
    @functools.wraps(command)
    def with_paths(*args: Any, database: DatabaseChoice, **kwargs: Any) -> Any:
        taken = {name: kwargs.pop(name) for name in ("anchors", "intermediates", "partial_chain", "allow_legacy", "at")}
        taken["crls"] = kwargs.pop("crls", ())
        return command(*args, paths=PathInputs(**taken, database=database), **kwargs)

    return with_paths  # type: ignore[return-value]  # click's decorators keep the callable, mypy sees the wrapper's type


def crl_option(command: F) -> F:
    """Add `--crl`; stands below `path_options`, which takes it."""
    return click.option("--crl", "crls", metavar="FILE", multiple=True, help="Revocation lists; may be repeated.")(command)


def policy_oids(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """What `--policy` was given, once it is known to be identifiers: another word would be a policy that nobody has."""
    from mailsec.asn1.writer import oid
    from mailsec.errors import Asn1Error

    for value in values:
        try:
            oid(value)
            written: str | None = ".".join(str(int(arc)) for arc in value.split("."))
        except Asn1Error:
            written = None
        if written != value:
            raise UsageError(f'--policy: "{value[:80]}" is no object identifier', hint="as in --policy 2.16.840.1.101.3.2.1.48.1")
    return values


def policy_options(command: F) -> F:
    """Add the policy inputs of RFC 5280 §6.1.1 (c) to (g), as keyword arguments."""
    for option in (
        click.option("--inhibit-any", is_flag=True, help="anyPolicy counts for no policy."),
        click.option("--inhibit-mapping", is_flag=True, help="Policies are not mapped."),
        click.option("--explicit-policy", is_flag=True, help="The path must be valid for a policy that was asked for."),
        click.option(
            "--policy", "policies", metavar="OID", multiple=True, callback=policy_oids, help="A policy that is accepted  [default: any]"
        ),
    ):
        command = option(command)
    return command


def read_ders(path: str, label: str = "CERTIFICATE") -> Sequence[bytes]:
    """The objects in the file `path`: PEM blocks of `label`, DER, or base64 of DER; raise InputError where there are none."""
    from mailsec.app.files import naming, read_file
    from mailsec.keys.files import load_certificates, pem_blocks

    data = read_file(path)
    if label == "CERTIFICATE":
        with naming(path):
            return load_certificates(data)
    if b"-----BEGIN " in data:
        found = [block.data for block in pem_blocks(data) if block.label.removeprefix("NEW ") == label]
        if not found:
            raise InputError(f"{path} holds no {label}", stage="parse")
        return found
    if data[:1] != b"\x30":
        try:
            return [base64.b64decode(data, validate=False)]
        except binascii.Error:
            raise InputError(f"{path} is neither PEM nor DER", stage="parse") from None
    return [data]


def reason_value(reason: Reason) -> dict[str, str]:
    """A reason in JSON."""
    from mailsec.smime.report import reason_json

    return reason_json(reason)


def certificate_value(certificate: Certificate) -> dict[str, object]:
    """A certificate in JSON."""
    from mailsec.smime.report import certificate_json
    from mailsec.x509.certificate import summary

    return certificate_json(summary(certificate)) or {}


def tell_reasons(output: Output, reasons: Sequence[Reason]) -> None:
    """Reasons for people."""
    for reason in reasons:
        output.text(f"  {reason.code}: {reason.message}" + (f" ({reason.rfc})" if reason.rfc else ""))
        if reason.hint:
            output.text(f"    {reason.hint}")
