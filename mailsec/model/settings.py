"""Settings as the rooms below `app` see them: frozen values without files, defaults or documentation.

`app.config` owns the documented models, reads TOML, and makes these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.session import Origin
from mailsec.model.tls import TlsPeer, TlsPolicy

__all__ = [
    "FrontSettings",
    "GatewaySettings",
    "ListenerSettings",
    "MailboxSettings",
    "NextHop",
    "Problem",
    "RelaySettings",
    "RevocationSettings",
    "TlsMode",
    "Upstream",
]


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in the configuration, at a path of the TOML document (empty: the document as a whole)."""

    path: tuple[str | int, ...]
    """("listener", 0, "address"). A plugin's begins in its own table: ("sign", 0, "key_file") in `[plugin.NAME]`."""
    message: str
    hint: str = ""


TlsMode = str
"""Listeners: "none", "starttls" (offered), "starttls-required", "implicit". Next hops: "none", "opportunistic", "required", "verified"."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """A mailbox's server."""

    host: str
    """A name or an address; in `MailboxSettings.allowed` also "*" (any) and ".example.org" (any below it)."""
    port: int = 995
    """0 in `MailboxSettings.allowed`: 995, or 110 with STLS."""
    implicit_tls: bool = True
    """TLS at once (RFC 8314 §3.1), not by STLS."""
    tls: TlsMode = "verified"
    """ "none" (loopback only), "required" or "verified"."""
    domains: tuple[str, ...] = ()
    """The domains whose addresses its logins are; a login that is no address is one in the first."""
    server_name: str = ""
    """The name that its certificate must hold, where that is not `host`."""
    peer: TlsPeer = field(default_factory=TlsPeer)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class MailboxSettings:
    """What a listener for mailboxes reads from."""

    upstream: Upstream | None = None
    """Where a login belongs that names no server."""
    allowed: tuple[Upstream, ...] = ()
    """Servers that a user name may name."""
    networks: tuple[str, ...] = ()
    """Networks that these may lie in though they are not public."""
    separator: str = "#"
    """What stands between the login and the server in a user name."""
    on_failure: str = "header"
    """ "header": what cannot be opened or believed comes as it is, with its verdict; "notice": behind a notice, attached."""


@dataclass(frozen=True, slots=True)
class FrontSettings:
    """Who may say that a client is somebody else than it seems."""

    proxies: tuple[str, ...] = ()
    """Networks of proxies that send a PROXY header; nobody else may connect then."""
    xclient: bool = False
    xclient_uids: tuple[int, ...] = ()
    """Users of this machine who may send XCLIENT over a unix socket."""
    xclient_login: bool = False


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """One `[[listener]]`."""

    name: str
    address: str
    """ "HOST:PORT", "[V6]:PORT" or "unix:PATH"."""
    protocol: str
    origin: Origin
    tls: TlsMode = "none"
    certificate: str = ""
    senders: tuple[str, ...] = ()
    """`trusted`: patterns of MAIL FROM and From addresses that it may use."""
    peers: tuple[str, ...] = ()
    """Networks that may connect; empty: everybody."""
    behind_own_mta: bool = False
    authenticate: bool = False
    """AUTH is offered (under TLS) and required: always so on `submission`."""
    normalise: bool = False
    """Bare CR and LF become CRLF instead of a refusal: for trusted peers."""
    service: str = ""
    """The name of a plugin's TcpService, for protocols that are neither smtp nor pop3."""
    mailbox: MailboxSettings | None = None
    """For the protocol "pop3"."""
    front: FrontSettings = field(default_factory=FrontSettings)
    recipients_per_hour: int = 0
    """Recipients to whom one identity may send in an hour; 0: without limit."""
    certificates: tuple[str, ...] = ()
    """Nicknames and "file:DIR" of server certificates; the first is shown to who asks for no name. `certificate` is the first, too."""
    tls_policy: TlsPolicy = field(default_factory=TlsPolicy)
    sni: str = "any"
    """Clients that ask for a name that no certificate has: "any" (the first certificate), "known" (refused), "required" (also without a name)."""
    client_certificates: str = "none"
    """ "none", "optional", "required", or "required-for-relaying" (to other domains than our own)."""
    require: str = ""
    """An expression of `rules.expressions` that must hold for mail to be taken."""
    client_names: tuple[str, ...] = ()
    """Host names or addresses of which a client's certificate must hold one to be accepted; empty: any."""
    client_fingerprints: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """SHA-256 fingerprints of accepted certificates, with the addresses that their holders may use; empty: those in the certificate."""
    secret_header: str = ""
    """`trusted`: the name of the header field in which every message must bear the secret; empty: none is asked for."""
    secrets: tuple[bytes, ...] = field(default=(), repr=False)
    """The secrets of which it must be one."""
    proxy: bool = False
    """What can be passed on at once is not spooled: the client gets the next hop's answer."""


@dataclass(frozen=True, slots=True)
class NextHop:
    """Where mail goes: "smtp" or "lmtp" to a host and port or a unix socket, or "mx" of the recipient's domain."""

    scheme: str
    host: str = ""
    port: int = 25
    path: str = ""
    tls: TlsMode = "opportunistic"
    username: str = ""
    password_file: str = ""
    server_name: str = ""
    """The name that its certificate must hold, where that is not `host`."""
    peer: TlsPeer = field(default_factory=TlsPeer)
    chunking: bool = True
    """BDAT where it is offered (RFC 3030)."""
    others: tuple[NextHop, ...] = ()
    """Next hops that are tried in this order where it cannot be reached."""
    connections: int = 0
    """Connections of one worker at once; 0: as many as to any next hop."""

    def __str__(self) -> str:
        if self.scheme == "mx":
            return "mx"
        if self.path:
            return f"{self.scheme}:unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """`[relay]`: next hops and retries. Seconds, unless said otherwise."""

    next_hop: NextHop
    routes: tuple[tuple[str, NextHop], ...] = ()
    """Domain ("example.org", ".example.org" for all below it) to next hop; first match wins."""
    retry_first: float = 60.0
    retry_longest: float = 3600.0
    give_up_after: float = 5 * 86400.0
    warn_after: float = 4 * 3600.0
    """When the sender is told that it takes long; 0: never."""
    connections_per_hop: int = 8
    idle_timeout: float = 30.0
    connect_timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class RevocationSettings:
    """`[revocation]`: who is asked, in which order, and where one may go for it."""

    mode: str = "check"
    """ "off", "check" (certificates that name a source, or that one here knows), "require" (all)."""
    order: tuple[str, ...] = ("ocsp", "crl")
    """Names of sources; those that are not named come last."""
    parallel: bool = False
    ocsp_nonce: bool = True
    ocsp_hash: str = "sha1"
    """How a question names the certificate: "sha1" or "sha256"."""
    responders: tuple[tuple[str, str], ...] = ()
    """Subject of an issuer to the URL that is asked about its certificates."""
    default_responder: str = ""
    """The URL that is asked about everything, whatever certificates name."""
    default_responder_certificate: bytes = b""
    """DER: who signs its answers."""
    crl_files: tuple[str, ...] = ()
    crl_urls: tuple[str, ...] = ()
    fetch_issuers: bool = False
    grace_days: int = 7
    """Encrypting for somebody: how many days after its end evidence still counts, where no newer can be had."""
    allow_networks: tuple[str, ...] = ()
    allow_ports: tuple[int, ...] = (80, 443)
    proxy: str = ""


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """`[gateway]` and what the pipeline needs of the rest."""

    hostname: str
    domains: tuple[str, ...]
    """Our own domains: "example.org", ".example.org" for all below it."""
    authserv_id: str
    """The name under which results are reported (RFC 8601 §2.5); the host name by default."""
    postmaster: str
    listeners: tuple[ListenerSettings, ...]
    relay: RelaySettings
    limits: Limits = field(default=DEFAULT_LIMITS)
    revocation: RevocationSettings = field(default_factory=RevocationSettings)
    reprocess_address: str = ""
    """Where people send mail to have it opened and judged again; empty: nowhere."""
    plugins: Mapping[str, object] = field(default_factory=dict)
    """`[plugin.NAME]` by name, each read by the model that its plugin brings (`register_config_models`)."""
