"""What a valid configuration needs around it: files, directories, the database and its nicknames, plugins. Nothing is bound or started.

`mailsec check` and `mailsec serve` look at the same things, so what `check` finds good, `serve` starts with.
"""

from __future__ import annotations

import ipaddress
import os
import pwd
import socket
import stat
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from mailsec.app.config.addresses import parse_endpoint, parse_hop
from mailsec.app.config.fips import PROFILE, places_that_want_fips
from mailsec.app.config.lines import Path as Place
from mailsec.app.config.load import Configuration
from mailsec.app.config.named_files import file_problem, secret_file_problem, unreadable
from mailsec.app.config.problems import Problem, near
from mailsec.app.config.tenants import read_secrets
from mailsec.builtin.passwd_file import read_passwd
from mailsec.builtin.recipients_file import read_recipients
from mailsec.errors import CertificateError, ConfigurationError, MailsecError
from mailsec.keys.files import load_certificates
from mailsec.keys.reference import parse_reference
from mailsec.store.certdb import CertDb
from mailsec.store.connection import database_file, parse_url
from mailsec.store.filesystems import network_file_system

__all__ = ["find_surrounding_problems", "read_anchor_file"]


def find_surrounding_problems(configuration: Configuration, database: CertDb | None, at: datetime) -> list[Problem]:
    """Everything that is missing or wrong outside the file. `database`: the open one, None where it could not be opened."""
    problems: list[Problem] = []
    _directories(configuration, problems)
    _circles(configuration, problems)
    _files(configuration, problems)
    _file_systems(configuration, problems)
    if database is not None:
        _nicknames(configuration, database, problems)
        try:
            # NSS refuses an empty password with FIPS: keys that nothing protects fit no such profile.
            if (places := places_that_want_fips(configuration)) and not database.has_password:
                message = f"the profile {PROFILE} needs a database with a pass phrase, and this one has none"
                problems.append(Problem(places[0], message, '"mailsec db password" sets one'))
            for trouble in database.check():
                problems.append(Problem(("database", "location"), trouble, '"mailsec db check" tells more'))
        except MailsecError as error:
            problems.append(Problem(("database", "location"), error.message, error.hint))
    return problems


def read_anchor_file(path: str) -> Sequence[bytes]:
    """The certificates (DER) of an anchor file; raise MailsecError or OSError."""
    data = Path(path).read_bytes()
    try:
        return load_certificates(data)
    except CertificateError as error:
        raise CertificateError("holds no certificate that can be read", hint="PEM or DER") from error


def _directories(configuration: Configuration, problems: list[Problem]) -> None:
    for place, directory in (
        (("spool", "directory"), configuration.spool.directory),
        (("gateway", "run_directory"), configuration.gateway.run_directory),
    ):
        _directory(place, Path(directory), problems)
    for index, listener in enumerate(configuration.listeners):
        try:
            endpoint = parse_endpoint(listener.address)
        except ValueError:
            continue  # `semantics` has said what is wrong with it
        if endpoint.path and not Path(endpoint.path).parent.is_dir():
            message = f"there is no directory {Path(endpoint.path).parent}"
            problems.append(Problem(("listener", index, "address"), message, "make it, for the user that mailsec runs as"))
    if configuration.log.file and not os.access(Path(configuration.log.file).parent, os.W_OK | os.X_OK):
        hint = "it must be there, and writable for the user that mailsec runs as"
        problems.append(Problem(("log", "file"), f"cannot write in {Path(configuration.log.file).parent}", hint))


def _circles(configuration: Configuration, problems: list[Problem]) -> None:
    """Next hops that are this machine by one of its own addresses, where a listener on all of them has the port."""
    wild = []
    for listener in configuration.listeners:
        try:
            wild += [endpoint for endpoint in (parse_endpoint(listener.address),) if endpoint.wildcard]
        except ValueError:
            continue
    relay = configuration.relay
    for place, hop in ((("relay", "next_hop"), relay.next_hop), *((("relay", "routes", name), hop) for name, hop in relay.routes.items())):
        try:
            first = parse_hop(hop)
        except ValueError:
            continue
        for one in (first, *first.others):
            family = ":" in one.host
            if any(one.port == endpoint.port and family == (":" in endpoint.host) for endpoint in wild) and _is_here(one.host):
                problems.append(Problem(place, f"{one} is this machine, where a listener has that port: mail would go round in circles"))


def _is_here(host: str) -> bool:
    """True for an address of this machine: what is sent there comes from it. Nothing is sent; loopback `semantics` has seen already."""
    try:
        address = ipaddress.ip_address(host)
        with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))
            return not address.is_loopback and bool(probe.getsockname()[0] == str(address))
    except (OSError, ValueError):
        return False


def _directory(place: Place, directory: Path, problems: list[Problem]) -> None:
    """One that is there and ours, or that can be made."""
    if directory.exists():
        if not directory.is_dir():
            problems.append(Problem(place, f"{directory} is no directory", "move the file that lies there away, or name a directory"))
        elif not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            problems.append(Problem(place, f"{directory} is not writable", _whose(directory)))
        elif stat.S_IMODE(directory.stat().st_mode) & 0o002:
            problems.append(Problem(place, f"everybody may write in {directory}", f"chmod 700 {directory}"))
        return
    if not os.access(directory.parent, os.W_OK | os.X_OK):
        problems.append(Problem(place, f"there is no {directory}, and it cannot be made", f"mkdir -p {directory}"))


def _whose(directory: Path) -> str:
    """What to do about a directory that is not ours: most often it is whoever asks that is the wrong one."""
    owner, we = directory.stat().st_uid, os.geteuid()
    if owner in (0, we):
        return f"chown {we} {directory}"
    return f"it belongs to {_user(owner)}: run this as that user (sudo -u), or chown {we} {directory}"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _file_systems(configuration: Configuration, problems: list[Problem]) -> None:
    """SQLite corrupts its files where a file system does not keep its locks: database and spool must lie on a local one."""
    places: list[tuple[Place, Path | None, str]] = [(("spool", "directory"), Path(configuration.spool.directory), "the spool")]
    try:
        places.append((("database", "location"), database_file(parse_url(configuration.database.location)), "a SQLite database"))
    except MailsecError:
        pass  # whoever opened it has said what is wrong with it
    for place, path, what in places:
        if path is not None and (name := network_file_system(path)):
            hint = "use a local disk" + ("" if place[0] == "spool" else ", or PostgreSQL where several machines share it")
            problems.append(Problem(place, f"{path} is on a network file system ({name}), which breaks {what}", hint))


def _files(configuration: Configuration, problems: list[Problem]) -> None:
    if configuration.passphrase.method in ("file", "defer"):
        _secret_file(("passphrase", "file"), configuration.passphrase.file, problems)
    elif configuration.passphrase.method == "exec" and not os.access(configuration.passphrase.command, os.X_OK):
        hint = "it must be there, and executable for the user that mailsec runs as"
        problems.append(Problem(("passphrase", "command"), f"cannot run {configuration.passphrase.command}", hint))
    for index, module in enumerate(configuration.modules):
        if module.enabled and module.library and not module.host and not os.path.isfile(module.library):  # noqa: PTH113 - as it is named
            hint = "is its package installed?"
            problems.append(Problem(("module", index, "library"), f"there is no PKCS#11 library {module.library}", hint))
    relay = configuration.relay
    hops = [(("relay", "next_hop"), relay.next_hop), *((("relay", "routes", domain), hop) for domain, hop in relay.routes.items())]
    for place, hop in hops:
        if hop.password_file:
            _secret_file((*place, "password_file"), hop.password_file, problems)
    for index, listener in enumerate(configuration.listeners):
        if listener.secret_file:
            _secret_file(("listener", index, "secret_file"), listener.secret_file, problems)
            try:
                read_secrets(listener.secret_file)
            except ConfigurationError as error:
                problems.append(Problem(("listener", index, "secret_file"), error.message, error.hint))
    for index, path in enumerate(configuration.trust.anchor_files):
        _certificates(("trust", "anchor_files", index), path, problems)
    if configuration.revocation.default_responder_certificate:
        _certificates(("revocation", "default_responder_certificate"), configuration.revocation.default_responder_certificate, problems)
    for index, path in enumerate(configuration.revocation.crl_files):
        if (problem := file_problem(("revocation", "crl_files", index), path)) is not None:
            problems.append(problem)
    for index, one in enumerate(configuration.authenticators):
        if one.file:
            _passwd_file(("authenticator", index, "file"), one.file, problems)
    if configuration.recipients.file:
        _lines(("recipients", "file"), configuration.recipients.file, read_recipients, problems)
    if relay.ca_file:
        _certificates(("relay", "ca_file"), relay.ca_file, problems)


def _passwd_file(place: Place, path: str, problems: list[Problem]) -> None:
    before = len(problems)
    _secret_file(place, path, problems)
    if len(problems) == before:
        _lines(place, path, read_passwd, problems)


def _lines(place: Place, path: str, read: Callable[[str], object], problems: list[Problem]) -> None:
    try:
        read(Path(path).read_text("utf-8"))
    except MailsecError as error:
        problems.append(Problem(place, f"{path}: {error.message}", error.hint))
    except OSError as error:
        problems.append(unreadable(place, path, error))
    except UnicodeDecodeError:
        problems.append(Problem(place, f"{path} is not UTF-8"))


def _secret_file(place: Place, path: str, problems: list[Problem]) -> None:
    if (problem := secret_file_problem(place, path)) is not None:
        problems.append(problem)


def _certificates(place: Place, path: str, problems: list[Problem]) -> None:
    try:
        found = read_anchor_file(path)
    except OSError as error:
        problems.append(unreadable(place, path, error))
        return
    except MailsecError as error:
        problems.append(Problem(place, f"{path}: {error.message}", error.hint))
        return
    if not found:
        problems.append(Problem(place, f"{path} holds no certificate", "PEM or DER"))


def _nicknames(configuration: Configuration, database: CertDb, problems: list[Problem]) -> None:
    entries = database.entries()
    known = sorted({entry.nickname for entry in entries})
    with_key = sorted({entry.nickname for entry in entries if entry.has_key})
    for index, rule in enumerate(configuration.rules):
        if rule.signer == "from" or rule.signer in with_key or _may_be_on_token(configuration, rule.signer):
            continue
        if ":" in rule.signer:
            hint = (
                "add a [[module]] for its token" if not configuration.modules else 'write it as "nickname", "token:nickname" or "pkcs11:…"'
            )
            problems.append(Problem(("rule", index, "signer"), f'"{rule.signer}" names no key on a token that could be here', hint))
        else:
            missing = "has no private key" if rule.signer in known else "is not in the database"
            problems.append(Problem(("rule", index, "signer"), f'"{rule.signer}" {missing}', near(rule.signer, with_key)))


def _may_be_on_token(configuration: Configuration, signer: str) -> bool:
    """What lies on tokens is known when they are there: where a module is in use, any reference may mean a key on one of its tokens."""
    try:
        parse_reference(signer)
    except MailsecError:
        return False
    return any(module.enabled for module in configuration.modules)
