"""Name constraints (RFC 5280 §4.2.1.10, RFC 9549 for URIs and addresses, RFC 9598 §6 for SmtpUTF8Mailbox).

Bases are kept in sets, so that a name costs as many look-ups as it has labels, however many constraints there are. Invariant: a name that
is of a constrained kind and cannot be read is outside what is permitted, and within what is excluded: fail closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from mailsec.errors import Asn1Error
from mailsec.model.address import normalise_domain
from mailsec.x509 import der, extensions
from mailsec.x509.certificate import Certificate
from mailsec.x509.extensions import GeneralName, NameConstraints
from mailsec.x509.names import EMAIL_ADDRESS, Name, decode, printable

__all__ = ["Constraints", "subject_names"]

OTHER, MAIL, HOST, X400, DIRECTORY, EDI, URI, ADDRESS, REGISTERED = range(9)
_SMTP_UTF8_MAILBOX: Final = "1.3.6.1.5.5.7.8.9"
_UTF8_MAIL: Final = 9
"""SmtpUTF8Mailbox, as a kind of its own beside the tags of GeneralName."""
_CHECKED: Final = frozenset({MAIL, HOST, DIRECTORY, URI, ADDRESS, _UTF8_MAIL})
_COMMON_NAME: Final = b"\x55\x04\x03"

Names = list[tuple[int, bytes]]


def subject_names(certificate: Certificate, *, hosts_in_common_name: bool) -> Names:
    """(kind, value) of every name of the subject that constraints speak of.

    `hosts_in_common_name`: count commonName as a host where there is no dNSName, as old TLS clients read it.
    """
    names: Names = []
    has_host = False
    for kind, value in certificate.alternative_names or ():
        if kind == OTHER:
            try:
                oid, encoding = extensions.other_name(value)
                if oid == _SMTP_UTF8_MAILBOX:
                    _, _, start, end = der.single(encoding, 0, len(encoding), der.UTF8_STRING, "SmtpUTF8Mailbox")
                    names.append((_UTF8_MAIL, encoding[start:end]))
                    continue
            except Asn1Error:
                pass
        has_host = has_host or kind == HOST
        names.append((kind, value))
    # RFC 5280 §6.1.3 (b): the subject name is checked against directoryName constraints; an empty one names nothing.
    if not certificate.subject.is_empty:
        names.append((DIRECTORY, certificate.subject.der))
        # RFC 5280 §4.2.1.10: constraints for rfc822Name apply to emailAddress in the subject; we do so whatever subjectAltName holds.
        for tag, value in certificate.subject.values(EMAIL_ADDRESS):
            names.append((MAIL, decode(tag, value).encode("utf-8", "replace")))
        if hosts_in_common_name and not has_host:
            for tag, value in certificate.subject.values(_COMMON_NAME):
                text = decode(tag, value).strip("\0 ")
                if _looks_like_host(text):
                    names.append((HOST, text.encode("ascii", "replace")))
    return names


def _looks_like_host(text: str) -> bool:
    labels = text.split(".")
    return len(labels) > 1 and all(label.replace("-", "").replace("_", "").replace("*", "").isalnum() for label in labels)


class _Set:
    """The bases of one list of subtrees, ready for look-ups."""

    __slots__ = ("directories", "everything", "hosts", "kinds", "lengths", "mailboxes", "networks", "others", "parents", "subdomains")

    def __init__(self, bases: Iterable[GeneralName]) -> None:
        self.kinds: set[int] = set()
        self.everything: set[int] = set()
        """Kinds with an empty base, which stands for every name."""
        self.hosts: dict[int, set[str]] = {MAIL: set(), HOST: set(), URI: set()}
        """The host itself."""
        self.subdomains: dict[int, set[str]] = {MAIL: set(), HOST: set(), URI: set()}
        """What lies below the host."""
        self.mailboxes: set[str] = set()
        self.directories: set[tuple[object, ...]] = set()
        self.lengths: set[int] = set()
        self.networks: list[tuple[int, int, int]] = []
        self.others: set[int] = set()
        self.parents: set[str] = set()
        """One label less than the hosts: what a wildcard that stands for one of them looks like."""
        for kind, value in bases:
            self.kinds.add(kind)
            if kind in (MAIL, HOST, URI):
                self._add_host(kind, value)
            elif kind == DIRECTORY:
                key = Name(value).key
                if not isinstance(key, tuple):
                    raise Asn1Error("nameConstraints: a directoryName that is none")
                self.directories.add(key)
                self.lengths.add(len(key))
            elif kind == ADDRESS:
                size = len(value) // 2
                if len(value) not in (8, 32):
                    raise Asn1Error("nameConstraints: an iPAddress that is not an address and a mask")
                mask = int.from_bytes(value[size:], "big")
                # RFC 5280 §4.2.1.10: a mask is ones and then zeros, as in CIDR.
                zeros = mask ^ ((1 << size * 8) - 1)
                if zeros & (zeros + 1):
                    raise Asn1Error("nameConstraints: a mask with holes")
                self.networks.append((size, int.from_bytes(value[:size], "big") & mask, mask))
            else:
                self.others.add(kind)

    def _add_host(self, kind: int, value: bytes) -> None:
        text = _ascii(value)
        if not text:
            self.everything.add(kind)
        elif kind == MAIL and "@" in text:
            # RFC 5280 §4.2.1.10: one mailbox.
            local_part, _, domain = text.rpartition("@")
            self.mailboxes.add(f"{local_part.lower()}@{normalise_domain(domain)}")
        elif text.startswith("."):
            self.subdomains[kind].add(normalise_domain(text[1:]))
        else:
            self.hosts[kind].add(normalise_domain(text))
            # RFC 5280 §4.2.1.10: a dNSName stands for itself and all below; rfc822Name and URI without a leading dot for the host alone.
            if kind == HOST:
                self.subdomains[kind].add(normalise_domain(text))
                self.parents.add(normalise_domain(text).partition(".")[2])

    def holds(self, kind: int, value: bytes) -> bool:
        """True where a name of this kind lies within one of the bases; raise Asn1Error where it cannot be read."""
        if kind == _UTF8_MAIL:
            # RFC 9598 §6: constraints on rfc822Name apply by host; a mailbox in them is no SmtpUTF8Mailbox.
            text = value.decode("utf-8", "strict")
            return MAIL in self.everything or self._holds_host(MAIL, text.rpartition("@")[2])
        if kind == MAIL:
            text = _ascii(value)
            local_part, at, domain = text.rpartition("@")
            if not at or not local_part or not domain:
                raise Asn1Error("an address that is none")
            key = f"{local_part.lower()}@{normalise_domain(domain)}"
            return kind in self.everything or key in self.mailboxes or self._holds_host(kind, domain)
        if kind == HOST:
            return kind in self.everything or self._holds_host(kind, _ascii(value))
        if kind == URI:
            return self._holds_host(kind, _host_of(_ascii(value))) or kind in self.everything
        if kind == DIRECTORY:
            rdns = Name(value).key
            if not isinstance(rdns, tuple):
                raise Asn1Error("a directory name that cannot be read")
            # RFC 5280 §7.1: within a subtree are names that begin with all its relative names.
            return any(rdns[:length] in self.directories for length in self.lengths)
        if kind == ADDRESS:
            number = int.from_bytes(value, "big")
            return any(len(value) == size and number & mask == base for size, base, mask in self.networks)
        return False

    def _holds_host(self, kind: int, text: str) -> bool:
        host = normalise_domain(text)
        if not host or any(not label for label in host.split(".")):
            raise Asn1Error("a host name that cannot be read")
        if host in self.hosts[kind]:
            return True
        below = self.subdomains[kind]
        return bool(below) and any(host[index + 1 :] in below for index, character in enumerate(host) if character == ".")

    def covers_wildcard(self, value: bytes) -> bool:
        """True where "*.example.org" may stand for a host of one of the bases."""
        host = normalise_domain(_ascii(value))
        return host.startswith("*.") and host[2:] in self.parents


def _ascii(value: bytes) -> str:
    if not value.isascii() or b"\0" in value:
        raise Asn1Error("a name with octets that do not belong there")
    return value.decode("ascii")


def _host_of(uri: str) -> str:
    # RFC 5280 §4.2.1.10: constraints apply to the host of the authority; a URI without one, or with an IP address, cannot be judged.
    _, separator, rest = uri.partition("://")
    authority = rest.split("/", 1)[0].split("?", 1)[0].split("#", 1)[0].rpartition("@")[2]
    host = authority.partition(":")[0]
    if not separator or not host or authority.startswith("[") or host.replace(".", "").isdigit():
        raise Asn1Error("a URI without a host name")
    return host


class Constraints:
    """permitted_subtrees and excluded_subtrees (RFC 5280 §6.1.2 (b), (c)) as they grow along a path."""

    __slots__ = ("bases", "excluded", "permitted", "unknown_critical")

    def __init__(self) -> None:
        self.permitted: list[_Set] = []
        self.excluded: list[_Set] = []
        self.bases = 0

    def __bool__(self) -> bool:
        return bool(self.permitted or self.excluded)

    def add(self, constraints: NameConstraints) -> None:
        """RFC 5280 §6.1.4 (g): intersect what is permitted, unite what is excluded; raise Asn1Error for bases that cannot be read."""
        self.bases += len(constraints.permitted) + len(constraints.excluded)
        if constraints.permitted:
            self.permitted.append(_Set(constraints.permitted))
        if constraints.excluded:
            self.excluded.append(_Set(constraints.excluded))

    def violations(self, names: Names) -> Iterator[str]:
        """RFC 5280 §6.1.3 (b), (c): say for each name that is not permitted, or excluded, which and why."""
        for kind, value in names:
            constrained = MAIL if kind == _UTF8_MAIL else kind
            for allowed in self.permitted:
                if constrained in allowed.kinds and not _within(allowed, kind, value, unreadable=False):
                    yield f"{_shown(kind, value)} is not among the permitted names"
                    break
            for forbidden in self.excluded:
                if constrained in forbidden.kinds and (
                    _within(forbidden, kind, value, unreadable=True) or (kind == HOST and forbidden.covers_wildcard(value))
                ):
                    yield f"{_shown(kind, value)} is among the excluded names"
                    break


def _within(bases: _Set, kind: int, value: bytes, *, unreadable: bool) -> bool:
    # RFC 5280 §4.2.1.10: a constraint of a kind that we cannot compare refuses every name of that kind.
    if kind not in _CHECKED:
        return unreadable
    try:
        return bases.holds(kind, value)
    except (Asn1Error, UnicodeDecodeError):
        return unreadable


def _shown(kind: int, value: bytes) -> str:
    if kind == DIRECTORY:
        return f"the name {Name(value).text[:200]}"
    if kind == ADDRESS:
        return f"the IP address {value.hex()}"
    if kind in _CHECKED:
        return f"the name {printable(value[:200].decode('utf-8', 'replace'))!r}"
    return f"a name of kind {kind}"
