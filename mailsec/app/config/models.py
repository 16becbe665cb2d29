"""Every setting of mailsec: its name, its type, its default, and what it means.

The docstring of a field is its documentation: `conf/mailsec.toml` is rendered from these models, and a test compares. Paths are
relative to the directory of the configuration file. Secrets are never in it: a setting that needs one names a file.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from mailsec.app.config.base import File, Section, Several, several
from mailsec.app.config.front import Front

__all__ = [
    "Database",
    "File",
    "Gateway",
    "Hop",
    "Listener",
    "Log",
    "Match",
    "Metrics",
    "Module",
    "Passphrase",
    "Peer",
    "Plugins",
    "Relay",
    "Revocation",
    "Rule",
    "Section",
    "Several",
    "Spool",
    "Tls",
    "Trust",
    "Upstream",
]


def _upstream(value: Any) -> Any:
    """A string stands for `{ to = … }`."""
    return {"to": value} if isinstance(value, str) else value


def _upstreams(value: Any) -> Any:
    """One stands for a list of it."""
    return [value] if isinstance(value, str | dict) else value


def _hop(value: Any) -> Any:
    """A string, or a list of them, stands for `{ to = … }`."""
    return {"to": value} if isinstance(value, str | list) else value


class Gateway(Section):
    """Who we are, and for whom we take mail."""

    hostname: str = Field(min_length=1)
    """Our name, as we greet with it and as it stands in Received fields."""
    domains: Several
    """Our own mail domains. Mail from the Internet is taken for these only. ".example.org" means all domains below example.org."""
    authserv_id: str = ""
    """The name in Authentication-Results (RFC 8601); the host name by default."""
    postmaster: str = ""
    """Who gets reports, and mail for "postmaster" of this host; postmaster@ the first of `domains` by default."""
    workers: int = Field(default=0, ge=0, le=512)
    """Worker processes; 0 means one for each processor."""
    run_directory: File = "run"
    """Where pid, lock and socket files are."""
    state_directory: File = "state"
    """What outlives a reboot: marks of logins to tokens, which keep a wrong PIN from being tried again."""
    drain_timeout: float = Field(default=30.0, ge=0, le=3600)
    """Seconds that workers may take to finish what they have begun when mailsec is stopped."""
    retire_timeout: float = Field(default=60.0, ge=0, le=3600)
    """Seconds for which sessions go on undisturbed, as they began, after a reload; then they are told to end as soon as they may."""
    reprocess_address: str = ""
    """An address in our domains: who is logged in and sends a message there as an attachment gets it back, opened and judged anew."""
    limits: dict[str, float] = Field(default_factory=dict)
    """Limits that differ from the defaults, by the names of docs/limits.md: { message_size = 50_000_000 }."""


class Database(Section):
    """The certificate database: certificates, trust, private keys, users."""

    location: File = "mailsec.db"
    """A file (SQLite), or an SQLAlchemy URL without a password. `mailsec db init` makes it."""


class Peer(Section):
    """A server that we speak to, and who it must be."""

    to: str | list[str] = ""
    """Its address, or several where one of them will do."""
    tls: Literal["none", "opportunistic", "required", "verified"] = "verified"
    """Encryption there."""
    server_name: str = ""
    """For "verified": the name that its certificate must hold, where that is not its host."""
    pins: Several = Field(default_factory=list)
    """For "verified": fingerprints (SHA-256) of its certificate ("sha256:AB:CD…") or of the key in it ("key-sha256:AB:CD…"). One of them
    must be right, and then neither name nor issuer matters."""
    authority: str = ""
    """For "verified": nickname of the only certificate that is believed there: its own, or that of its CA."""
    certificate: str = ""
    """The certificate that we show when we are asked for one: a nickname, or "file:DIR"."""
    tls_profile: Literal["", "modern", "intermediate", "fips-algorithms"] = ""
    """A profile for this server, instead of that of [tls]."""
    protocols: Several = Field(default_factory=list)
    """Versions for this server, instead of those of [tls]."""
    ciphers: str = ""
    """Ciphers for this server, instead of those of [tls]."""


class Upstream(Peer):
    """A mailbox's server, where it needs more than its address."""

    to: str = ""
    """ "pop3s://HOST:PORT" (TLS at once) or "pop3://HOST:PORT" (STLS, which is demanded). In `allowed_upstreams` also "*", any host, and
    ".example.org", any host below it, on port 995, or on 110 with STLS."""
    tls: Literal["none", "required", "verified"] = "verified"
    """ "verified" (a certificate of its name), "required" (any certificate) or "none" (this machine only)."""
    domains: Several = Field(default_factory=list)
    """The domains whose addresses its logins are: only then is mail opened, with the keys of that address. A login "alice" is an address in
    the first; a login that is an address must be in one of them. Name only domains that this server keeps apart."""


AnyUpstream = Annotated[Upstream, BeforeValidator(_upstream)]


class Listener(Section):
    """A port that mail comes in by, or is read by. Its origin decides what may happen to the mail, never an address in the mail."""

    @model_validator(mode="before")
    @classmethod
    def _of_service(cls, given: Any) -> Any:
        # Nothing is known of who speaks there, until the plugin says something.
        return {"origin": "internet", **given} if isinstance(given, dict) and given.get("service") else given

    name: str = ""
    """How logs and rules call it; origin and port by default ("submission-587")."""
    address: str
    """ "HOST:PORT", "[IPV6]:PORT" or "unix:PATH"."""
    protocol: Literal["smtp", "lmtp", "pop3"] = "smtp"
    """What is spoken there: "smtp", "lmtp" (a reply for each recipient; never on port 25), or "pop3" for the origin "mailbox"."""
    service: str = ""
    """The name of a service that an enabled plugin brings: its protocol is spoken there instead. Such a listener has no origin; `peers`, `tls`
    and the limits of connections count there, too."""
    origin: Literal["submission", "trusted", "internet", "mailbox"]
    """Who comes there: "submission", people who authenticate themselves; "trusted", a mail server that has checked its users; "internet",
    anybody; "mailbox", people who read their mail. Only mail from the first two is signed; the rest is verified, whatever it says."""
    tls: Literal["none", "starttls", "starttls-required", "implicit"] = "none"
    """Encryption: "none", "starttls" (offered; STLS in POP3), "starttls-required" or "implicit". Passwords are taken under TLS only."""
    certificate: Several = Field(default_factory=list)
    """The server certificate: its nickname in the database, or "file:DIR" (a directory with certificates and keys in PEM, read again when
    it changes). Several in a list: one is chosen by the name that a client asks for, and by the keys that it can check (RSA, ECDSA)."""
    sni: Literal["any", "known", "required"] = "any"
    """Clients that ask for a name that no certificate has: "any" (they are shown the first certificate), "known" (refused), "required"
    (refused, and so are those that ask for no name)."""
    client_certificates: Literal["none", "optional", "required", "required-for-relaying"] = "none"
    """Whether clients are asked for a certificate: "none", "optional", "required", or "required-for-relaying" (for recipients outside our
    domains). Certificates are checked like those in mail: anchors (trust letter T), revocation, purpose."""
    client_names: Several = Field(default_factory=list)
    """Host names and addresses of which a client's certificate must hold one; none given: any certificate that is accepted."""
    client_fingerprints: dict[str, Several] = Field(default_factory=dict)
    """On "submission", who holds a certificate may use the addresses in it. This table gives other addresses to certificates by their
    SHA-256 fingerprints, and no others are accepted then: { "AB:CD:…" = ["printer@example.org"] }."""
    require: str = ""
    """An expression over the TLS session, as NSSRequire has it: where it does not hold, no mail is taken, and no mailbox opened (docs/tls.md)."""
    tls_profile: Literal["", "modern", "intermediate", "fips-algorithms"] = ""
    """A profile for this listener, instead of that of [tls]."""
    protocols: Several = Field(default_factory=list)
    """Versions for this listener, instead of those of [tls]."""
    ciphers: str = ""
    """Ciphers for this listener, instead of those of [tls]."""
    senders: Several = Field(default_factory=list)
    """For "trusted": the addresses that may send there, in MAIL FROM and in From: "name@domain", "@domain", "@.domain" (all below it)."""
    peers: Several = Field(default_factory=list)
    """Networks that may connect: "192.0.2.0/24"; none given: everybody may."""
    secret_header: str = ""
    """For "trusted", where a server's addresses and certificate are shared by many tenants: the name of a header field in which all mail
    must bear the secret of `secret_file`. Other mail is refused; the field is taken out of what is not."""
    secret_file: File = ""
    """The file with that secret, on a line of its own: 20 signs or more, no blanks. One on each of several lines: any of them is taken, so
    that a new one can be brought in. Readable by mailsec only; read when mailsec starts."""
    behind: Literal["", "own-mta"] = ""
    """For "internet": "own-mta" where only our own mail server connects there, whose Authentication-Results are then kept."""
    proxy: bool = False
    """Proxy mode: what stays one copy, waits for nothing and is not decrypted is passed on while its client waits, who is told what the next
    hop says; if that is away, the client keeps the mail. Everything else goes by the spool, as without it."""
    front: Front = Front()
    """What stands in front of it and speaks for its clients: a proxy, or a mail server with XCLIENT."""
    recipients_per_hour: int = Field(default=0, ge=0)
    """To how many recipients somebody may send in an hour; 0 means without limit. On "submission" who logged in, on "trusted" each sender."""
    normalise: bool = False
    """Make CRLF of a bare CR or LF, where peers send such; otherwise mail with one is refused."""
    upstream: AnyUpstream = Upstream()
    """For "mailbox": the server with the mailboxes, "pop3s://mail.example.org", or { to = "…", domains = ["example.org"] }."""
    allowed_upstreams: Annotated[list[AnyUpstream], BeforeValidator(_upstreams)] = Field(default_factory=list)
    """For "mailbox": servers that people may name in their user name, as in "alice#pop.example.org:995"; written as `upstream`."""
    upstream_networks: Several = Field(default_factory=list)
    """For "mailbox": networks that such servers may lie in though they are not public: "10.1.0.0/16"."""
    separator: str = "#"
    """For "mailbox": the sign between login and server in a user name."""
    on_failure: Literal["header", "notice"] = "header"
    """For "mailbox": mail that cannot be opened or is not accepted comes as it is with its verdict in the "header", or behind a "notice",
    attached."""


class Tls(Section):
    """How TLS is spoken, on listeners and towards next hops; both may differ from this. See docs/tls.md."""

    profile: Literal["modern", "intermediate", "fips-algorithms"] = "intermediate"
    """ "modern" (TLS 1.3 only), "intermediate" (1.2 and 1.3, forward secrecy, authenticated encryption), "fips-algorithms" (the same with
    the algorithms of FIPS only)."""
    protocols: Several = Field(default_factory=list)
    """Versions instead of the profile's: "TLSv1.2", "TLSv1.3". As with NSSProtocol the lowest and the highest count."""
    ciphers: str = ""
    """Ciphers instead of the profile's: OpenSSL's names with colons, or NSS's with commas, as in NSSCipherSuite."""
    groups: Several = Field(default_factory=list)
    """Groups for the key exchange instead of the profile's, the best first: "X25519MLKEM768", "X25519", "P-256" …"""
    resumption: bool = True
    """Whether sessions may be resumed (within one worker)."""
    session_lifetime: int = Field(default=7200, ge=5, le=86400)
    """Seconds for which a session may be resumed. Keys of tickets are changed as often."""
    enforce_valid_certs: Literal["warn", "strict"] = "warn"
    """Server certificates that have expired or that nobody would trust: "warn" about them, or do not start ("strict")."""
    client_anchor_files: list[File] = Field(default_factory=list)
    """Files of CA certificates (PEM or DER) that vouch for clients' certificates, besides those in the database with the trust letter T."""
    ocsp_stapling: bool = False
    """Show clients an OCSP response with our certificate. The TLS library of today cannot; mailsec check says so."""


class Passphrase(Section):
    """How pass phrases are obtained when mailsec starts: that of the database ("internal"), and the PIN of each token, by its exact name."""

    method: Literal["builtin", "file", "defer", "exec", "systemd"] = "builtin"
    """ "builtin" asks on the terminal, "file" reads `file`, "defer" is the same and tokens that are not in it are left alone, "exec" asks
    `command`, "systemd" reads the credential `mailsec-passphrase` (LoadCredential=), which is written as `file` is."""
    file: File = ""
    """For "file" and "defer": lines NAME:PASSPHRASE, "internal" being the database and others tokens; or one line with the pass phrase of
    the database. Only the end of the line is removed. Readable by mailsec only."""
    command: File = ""
    """For "exec": a program that is called with the name, and writes the pass phrase. If it fails or writes nothing there is none."""


class Module(Section):
    """A PKCS#11 module: smart cards, an HSM, NSS databases. Keys on its tokens sign and open mail as those of the database do. Each module
    has a process of its own (its token host), so that a library that crashes or hangs takes no mail with it."""

    name: str = Field(min_length=1, max_length=64)
    """How logs and commands call it. One of the same name that `mailsec module add` made is not used."""
    library: File = ""
    """The PKCS#11 library: "/usr/lib/softhsm/libsofthsm2.so". `mailsec module list` shows those that the system knows."""
    nss: Annotated[list[File], BeforeValidator(several)] = Field(default_factory=list)
    """Instead of `library`: directories of NSS databases (cert9.db, key4.db), each of which is a token."""
    parameters: str = ""
    """What the library is initialised with, where it wants a string (NSS's own "module spec" instead of `nss`)."""
    tokens: Several = Field(default_factory=list)
    """Names of the tokens to log in to, exactly; or PKCS#11 URIs where two have one name. None given: all that need a PIN."""
    enabled: bool = True
    """false: it is not used."""
    host: str = ""
    """ "unix:PATH": the socket of a token host that systemd started under a user of its own; empty: mailsec starts it."""
    threads: int = Field(default=0, ge=0, le=64)
    """Calls into the library at once; 0 means one for each processor."""
    call_timeout: float = Field(default=10.0, gt=0, le=300)
    """Seconds that an operation may take. After that, mail waits, and a host whose library hangs is started again."""
    uses_per_minute: int = Field(default=6000, ge=0)
    """How often keys may be used for one address; 0 means without limit. Mail over it waits."""
    raw_rsa: bool = False
    """Make RSA padding in software where a token has the bare operation only: a last resort, which a token should not need."""


class Trust(Section):
    """Whose signatures are believed. Anchors live in the database (`mailsec cert trust`); files can be added here."""

    anchor_files: list[File] = Field(default_factory=list)
    """Files of CA certificates (PEM or DER) that are anchors for e-mail, for all domains."""
    learn_certificates: bool = True
    """Keep the certificates of correspondents whose signed mail is trusted, to encrypt for them, and what their programs can read. A
    certificate with another key than the one in use waits for somebody to accept it."""


class Revocation(Section):
    """Whether certificates were revoked, and who is asked. Revoked is not trusted; where nobody can be asked, mail is delivered, and never
    as "pass". An own key that is revoked is not used."""

    mode: Literal["check", "require", "off"] = "check"
    """ "check": certificates are checked that name a source, or for which there is one here; others are "not-checked". "require": those
    are "unknown". "off": none is checked."""
    order: list[str] = Field(default_factory=lambda: ["ocsp", "crl"])
    """The sources in the order in which they are asked: "ocsp", "crl", and names of plugins' sources, which come last by default."""
    parallel: bool = False
    """Ask all sources at once instead of the next one when the one before did not help."""
    ocsp_nonce: bool = True
    """Send a nonce (RFC 9654), so that an old answer cannot be played again; without one, short questions are asked with GET."""
    ocsp_hash: Literal["sha1", "sha256"] = "sha1"
    """How questions name a certificate. It is a name, no signature: "sha1" is what every responder knows (RFC 5019); "sha256" is what
    RFC 9919 asks for, and older responders answer "unauthorized" to. With "sha256" and without a nonce, questions are those of RFC 9919."""
    responders: dict[str, str] = Field(default_factory=dict)
    """OCSP responders of issuers, by their subjects as `mailsec cert show` prints them, instead of those that certificates name:
    { "CN=Example CA,O=Example" = "http://ocsp.example.org/" }."""
    default_responder: str = ""
    """The URL of one OCSP responder that is asked about all certificates, whatever they name. Needs `default_responder_certificate`."""
    default_responder_certificate: File = ""
    """The file with the certificate of that responder; its answers are believed about every certificate."""
    crl_files: list[File] = Field(default_factory=list)
    """Files with revocation lists (PEM or DER); they are read again when they change."""
    crl_urls: list[str] = Field(default_factory=list)
    """Where revocation lists are fetched regularly, besides those that certificates name."""
    fetch_issuers: bool = False
    """Fetch certificates of issuers that a message lacks from where certificates say they are (RFC 5280, caIssuers)."""
    grace_days: int = Field(default=7, ge=0, le=30)
    """Encrypting for somebody: how many days after its end (nextUpdate) evidence still counts, where no newer can be had."""
    allow_networks: Several = Field(default_factory=list)
    """Networks that may be asked though they are not public: "10.1.0.0/16". Others are refused, whatever a certificate names."""
    allow_ports: list[Annotated[int, Field(ge=1, le=65535)]] = Field(default_factory=lambda: [80, 443], min_length=1)
    """Ports that may be asked."""
    proxy: str = ""
    """ "http://HOST:PORT": the proxy for a gateway without a route to the Internet. Names are then resolved there, and which addresses
    may be asked is for the proxy to say."""


class Match(Section):
    """Which messages a rule is for; all conditions that are given must hold. Patterns as in `senders`."""

    listener: Several = Field(default_factory=list)
    """Names of listeners."""
    origin: Annotated[list[Literal["submission", "trusted", "internet", "mailbox"]], BeforeValidator(several)] = Field(default_factory=list)
    """Origins of listeners."""
    user: Several = Field(default_factory=list)
    """Logins."""
    sender: Several = Field(default_factory=list)
    """Addresses in From."""
    recipient: Several = Field(default_factory=list)
    """Addresses of the recipient."""
    kind: Annotated[list[Literal["report", "calendar"]], BeforeValidator(several)] = Field(default_factory=list)
    """Mail that programs read: "report" (delivery and disposition notifications), "calendar" (invitations and answers to them). Such mail is
    signed, or encrypted "if-possible", only by rules that name its kind; "required" encryption holds for it, too."""
    subject: str = ""
    """A regular expression that is found in the subject."""
    header: dict[str, str] = Field(default_factory=dict)
    """Header field names, each with a regular expression that is found in one of its values."""
    tls: str = ""
    """An expression over the TLS session, in the language of NSSRequire: '%{SSL_CLIENT_VERIFY} == "SUCCESS"' (docs/tls.md)."""


class Rule(Section):
    """What happens to which mail. The first rule that matches and says something about signing decides that."""

    name: str = Field(min_length=1)
    """How logs and `mailsec explain` call it."""
    match: Match = Field(default_factory=Match)
    """Which messages it is for: all, where this is left out."""
    sign: Literal["", "required", "if-possible", "never"] = ""
    """Whether mail of "submission" and "trusted" is signed: "required", "if-possible" or "never"; empty: this rule does not say."""
    encrypt: Literal["", "required", "if-possible", "never"] = ""
    """Whether it is encrypted: "required" (else see `failure`), "if-possible" (where the recipient has a certificate) or "never"; empty: this
    rule does not say. The first rule that matches and says something about encryption decides that; signing may be another rule's."""
    inbound: Literal["", "report", "required"] = ""
    """What is asked of mail from "internet": "required" (a trusted signature; see `failure`) or "report" (any, with its verdict)."""
    signer: str = "from"
    """Who signs: "from" (the key whose certificate names the From address), or a nickname."""
    form: Literal["", "detached", "opaque"] = ""
    """ "detached" (multipart/signed, readable by everybody) or "opaque" (application/pkcs7-mime, survives bad relays). Empty here and below:
    what is agreed with the partner (`mailsec partner`), else the first word."""
    wrap: Literal["", "sign", "triple"] = ""
    """How signed and encrypted mail is wrapped: "sign" (signed, then encrypted) or "triple" (and signed once more around that)."""
    header_protection: Literal["", "no", "sign", "baseline", "shy"] = ""
    """Whether header fields are protected, too (RFC 9788): "no", "sign" (signed and readable outside), "baseline" (encrypted mail shows
    "[...]" as its subject outside) or "shy" (and names and times are hidden as far as mail can go without)."""
    compress: bool | None = None
    """Compress what is encrypted; few programs read that."""
    encrypt_to_sender: bool | None = None
    """Encrypt each copy to the sender's own certificate, too."""
    profile: str = ""
    """The algorithms that are used ("default" and others: docs/profiles.md)."""
    failure: Literal["", "refuse", "hold"] = ""
    """When something required cannot be done: "refuse" the mail with a reason, or "hold" it for `mailsec queue`."""


class Hop(Peer):
    """A next hop, where it needs more than its address."""

    to: Annotated[list[str], BeforeValidator(several)] = Field(min_length=1)
    """ "smtp://HOST:PORT", "lmtp://HOST:PORT", "smtp:unix:PATH", "lmtp:unix:PATH", or "mx" (what DNS says of the recipient's domain). Of
    several in a list the first that can be reached gets the mail."""
    connections: int = Field(default=0, ge=0, le=1000)
    """Connections of one worker to it at once; 0: as `connections_per_hop` says."""
    tls: Literal["none", "opportunistic", "required", "verified"] = "opportunistic"
    """Encryption there: "none", "opportunistic", "required" (any certificate) or "verified" (a certificate of its name)."""
    username: str = ""
    """Login there; needs `password_file`, and "required" or "verified"."""
    password_file: File = ""
    """The file with its password."""
    chunking: bool = True
    """Send messages in one chunk (BDAT) where that is offered; false for a server that offers it and fails."""


AnyHop = Annotated[Hop, BeforeValidator(_hop)]


class Relay(Section):
    """Where mail goes, and how often that is tried."""

    next_hop: AnyHop
    """Where mail goes: "smtp://HOST:PORT", "lmtp:unix:PATH", "mx", a list of them (the first that can be reached), or { to = "smtp://HOST:PORT",
    tls = "verified", username = "…", password_file = "…" }. "HOST" may be "[127.0.0.1]" or "[IPV6]"."""
    routes: dict[str, AnyHop] = Field(default_factory=dict)
    """Next hops of recipients' domains that go elsewhere: { "example.org" = "lmtp:unix:/run/dovecot/lmtp" }."""
    ca_file: File = ""
    """CA certificates for next hops that are "verified"; the system's by default."""
    retry_first: float = Field(default=60.0, gt=0)
    """Seconds before the first retry; each further one waits longer."""
    retry_longest: float = Field(default=3600.0, gt=0)
    """The longest time between two attempts, in seconds."""
    warn_after: float = Field(default=14400.0, ge=0)
    """Seconds after which the sender is told that it takes long (four hours); 0: never."""
    give_up_after: float = Field(default=432000.0, gt=0)
    """Seconds after which the sender is told that it failed (five days)."""
    connections_per_hop: int = Field(default=8, ge=1, le=1000)
    """Connections of one worker to one next hop at once."""
    idle_timeout: float = Field(default=30.0, gt=0)
    """Seconds that an unused connection is kept."""
    connect_timeout: float = Field(default=30.0, gt=0)
    """Seconds to wait for a connection."""


class Spool(Section):
    """Where mail is kept until it is delivered."""

    directory: File = "spool"
    """A directory on a disk that keeps what was synced. No other program writes there."""


class Log(Section):
    """What is written about mail: a line on receipt, a line for each delivery; never a subject."""

    format: Literal["auto", "text", "json"] = "auto"
    """ "text", "json" (one object a line), or "auto": text on a terminal, JSON otherwise."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important lines that are written."""
    file: File = ""
    """A file to append to; standard error by default. Where it was moved away (logrotate) it is made anew within a second."""
    privacy: Literal["none", "pseudonym", "strict"] = "none"
    """Addresses in the log: "none" (as they are), "pseudonym" (local parts and logins are replaced by a keyed hash, domains stay) or "strict"
    (whole addresses, Message-IDs, and hosts of clients, too). `mailsec log find ADDRESS` finds the lines of a person in each of them."""


class Metrics(Section):
    """What Prometheus reads, and what says whether mailsec is well (docs/running.md)."""

    listen: str = ""
    """ "127.0.0.1:PORT", "[::1]:PORT" or "unix:PATH": /metrics, /healthz and /readyz over HTTP, for this machine only; empty: none."""


class Plugins(Section):
    """Which plugins are loaded besides the built-in ones, in the order in which they are asked."""

    enabled: list[str] = Field(default_factory=list)
    """Names of installed plugins (entry points of the group "mailsec"), or of files in `path`. Plugins are trusted code."""
    path: list[File] = Field(default_factory=list)
    """Directories with plugins that are single files: NAME.py is the plugin NAME. They and all above them belong to root, and nobody else can
    write there."""
