"""With a real slapd: certificates, recipients, lists; TLS, logins, servers that are out, and what strangers put into addresses."""

from __future__ import annotations

import contextlib
import os
import shutil
import smtplib
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import ldap3
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs7
from cryptography.x509.oid import NameOID

from mailsec.errors import Unavailable
from mailsec.interfaces import EvidenceRequest, FoundCertificate
from mailsec.keys.files import pem
from mailsec.model.address import Address
from mailsec.model.settings import RevocationSettings
from mailsec.model.trust import IssuedCertificate
from mailsec.testing.authority import Authority, MemoryDirectory, MemoryTrust
from mailsec.testing.contracts import check_certificate_directory, check_recipient_directory
from mailsec.testing.gateway import MemoryGateway
from mailsec.testing.runtime import FakeRuntime
from mailsec.x509.certificate import load_certificate
from mailsec.x509.issue import issue_mail, make_key, public_key_of
from mailsec.x509.issue_crl import issue_crl
from mailsec_ldap.directory import LdapDirectory
from mailsec_ldap.lists import LdapLists
from mailsec_ldap.plugin import LdapPlugin
from mailsec_ldap.servers import Servers
from mailsec_ldap.settings import LdapSettings

SLAPD = shutil.which("slapd", path="/usr/sbin:/usr/bin:/usr/lib/openldap")
pytestmark = pytest.mark.skipif(SLAPD is None or not Path("/etc/ldap/schema/core.schema").exists(), reason="slapd is not installed")

CONFIGURATION = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
TLSCACertificateFile {place}/ca.pem
TLSCertificateFile {place}/server.pem
TLSCertificateKeyFile {place}/server.key
sizelimit 500
database mdb
suffix "dc=example,dc=net"
rootdn "cn=admin,dc=example,dc=net"
rootpw secret
maxsize 16777216
directory {place}/data
access to attrs=mail,entry,objectClass,userCertificate,userSMIMECertificate,certificateRevocationList by * read
access to * by * search
"""
AUTHORITY = Authority(at=datetime.now(UTC) - timedelta(days=1))
BOB, CAROL, DAVE = (AUTHORITY.issue(f"{name}@example.net").certificate for name in ("bob", "carol", "dave"))
PEOPLE = "ou=people,dc=example,dc=net"
LIST = "cn=CA,dc=example,dc=net"


def bundle(*certificates: bytes) -> bytes:
    """A PKCS #7 SignedData without signers."""
    return pkcs7.serialize_certificates([x509.load_der_x509_certificate(one) for one in certificates], Encoding.DER)


NOW = datetime.now(UTC)
ADDRESS = f"ldap:///{LIST}?certificateRevocationList;binary"


def listed(name: str, url: str = ADDRESS) -> bytes:
    """A certificate that says that its list is at `url`."""
    issuer = replace(AUTHORITY.issuer, crl_urls=(url,))
    public = public_key_of(make_key("ec-p256"))
    return issue_mail(issuer, addresses=[Address.parse(f"{name}@example.net")], public_key=public, at=AUTHORITY.at, random=os.urandom)


FRANK, GRACE, HEIDI = listed("frank"), listed("grace"), listed("heidi", "ldap:///cn=None,dc=example,dc=net")
REVOKED = IssuedCertificate(AUTHORITY.certificate, load_certificate(GRACE).serial, GRACE, NOW, revoked_at=NOW - timedelta(hours=1))
CRL = issue_crl(AUTHORITY.issuer, [REVOKED], number=1, at=NOW)


def write_server_certificate(place: Path) -> None:
    """A certificate for 127.0.0.1, and the one that signed it."""
    now = datetime.now(UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("LDAP CA", "ldap")]
    issuer = x509.SubjectKeyIdentifier.from_public_key(keys[0].public_key())

    def build(which: int) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder(names[0], names[which], keys[which].public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=30))
            .add_extension(x509.BasicConstraints(not which, None), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(keys[which].public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), False)
        )

    authority = build(0).add_extension(x509.KeyUsage(False, False, False, False, False, True, True, False, False), True)
    server = build(1).add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
    (place / "ca.pem").write_bytes(authority.sign(keys[0], hashes.SHA256()).public_bytes(Encoding.PEM))
    (place / "server.pem").write_bytes(server.sign(keys[0], hashes.SHA256()).public_bytes(Encoding.PEM))
    (place / "server.key").write_bytes(keys[1].private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))


def fill(port: int) -> None:
    with ldap3.Connection(
        ldap3.Server("127.0.0.1", port, get_info=ldap3.NONE), "cn=admin,dc=example,dc=net", "secret", auto_bind=True
    ) as root:

        def add(name: str, *classes: str, **values: object) -> None:
            assert root.add(name, list(classes), {key.replace("_", ";"): value for key, value in values.items()}), root.result

        add("dc=example,dc=net", "dcObject", "organization", o="Example")
        add(PEOPLE, "organizationalUnit")
        for name, values in {
            "bob": {"userCertificate_binary": [BOB], "userSMIMECertificate": [b"\x99\x01\x0dPGP"]},
            "carol": {"userSMIMECertificate": [bundle(AUTHORITY.certificate, CAROL)]},
            "dave": {"userCertificate_binary": [DAVE], "userSMIMECertificate": [bundle(DAVE, AUTHORITY.certificate)]},
            "erin": {},
        }.items():
            person = {"cn": name, "sn": name, "mail": f"{name.title()}@Example.net", **values}
            add(f"uid={name},{PEOPLE}", "inetOrgPerson", **person)
        add(LIST, "cRLDistributionPoint", certificateRevocationList_binary=[CRL])
        add(f"cn=Empty,{PEOPLE}", "cRLDistributionPoint")
        add(f"ou=elsewhere,{PEOPLE}", "referral", "extensibleObject", ref="ldap://127.0.0.1:1/ou=elsewhere")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Slapd:
    place: Path
    port: int
    tls_port: int

    def settings(self, **changes) -> LdapSettings:
        values = {
            "servers": [f"ldap://127.0.0.1:{self.port}"],
            "ca_file": str(self.place / "ca.pem"),
            "base": PEOPLE,
            "recipients": ["example.net"],
            "lists": True,
        }
        return LdapSettings(**(values | changes))


@pytest.fixture(scope="module")
def slapd() -> Iterator[Slapd]:
    place = Path(tempfile.mkdtemp(prefix="mailsec-slapd-"))
    (place / "data").mkdir()
    write_server_certificate(place)
    (place / "slapd.conf").write_text(CONFIGURATION.format(place=place))
    user = None
    if os.geteuid() == 0:
        # As nobody, as it would be in earnest.
        user = "nobody"
        for one in (place, *place.iterdir()):
            shutil.chown(one, user)
    port, tls_port = free_port(), free_port()
    command = [SLAPD, "-d", "0", "-f", str(place / "slapd.conf"), "-h", f"ldap://127.0.0.1:{port} ldaps://127.0.0.1:{tls_port}"]
    process = subprocess.Popen(command, user=user, cwd="/", stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", tls_port), 0.2).close()
                break
            except OSError:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    raise AssertionError(f"slapd ended with {process.wait(0.05)}") from None
        fill(port)
        yield Slapd(place, port, tls_port)
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(place)


def directory(settings: LdapSettings, runtime: FakeRuntime) -> LdapDirectory:
    servers = Servers(runtime, seconds=settings.timeout, connections=settings.connections, ca_file=settings.ca_file)
    return LdapDirectory(settings, runtime, servers)


def found(settings: LdapSettings, who: str) -> list:
    runtime = FakeRuntime()
    return list(runtime.run(directory(settings, runtime).certificates(Address.parse(who))))


def test_it_keeps_the_contracts_of_directories(slapd):
    runtime = FakeRuntime()
    one, run = directory(slapd.settings(), runtime), runtime.run
    check_certificate_directory(one, run, Address.parse("bob@example.net"), Address.parse("nobody@example.net"))
    check_recipient_directory(
        one, run, Address.parse("erin@example.net"), Address.parse("nobody@example.net"), Address.parse("bob@other.example")
    )


def test_certificates_alone_and_in_bundles_and_nothing_else(slapd):
    (bob,) = found(slapd.settings(), "bob@example.net")
    assert (bob.der, bob.source, bob.origin, bob.trusted_binding) == (BOB, "ldap", f"uid=bob,{PEOPLE}", False)
    (carol,) = found(slapd.settings(), "carol@example.net")
    assert (carol.der, carol.chain) == (CAROL, (AUTHORITY.certificate,))
    assert [one.der for one in found(slapd.settings(), "dave@example.net")] == [DAVE]
    assert found(slapd.settings(), "erin@example.net") == []
    assert found(slapd.settings(domains=["other.example"]), "bob@example.net") == []


@pytest.mark.parametrize(
    "who", ["*@example.net", '"*"@example.net', '"x)(uid=*"@example.net', '"bob@example.net)(|(uid=*"@x.example', '"\\\\2a"@x.example']
)
def test_attack_an_address_that_is_a_filter(slapd, who):
    assert found(slapd.settings(), who) == []
    runtime = FakeRuntime()
    assert runtime.run(directory(slapd.settings(), runtime).exists(Address.parse(who))) in (False, None)


@pytest.mark.parametrize("tls", ["starttls", "none", "ldaps"])
def test_every_way_in(slapd, tls):
    (slapd.place / "password").write_text("secret\nsecond line\n")
    login = {"bind_dn": "cn=admin,dc=example,dc=net", "password_file": str(slapd.place / "password")}
    server = f"ldaps://127.0.0.1:{slapd.tls_port}" if tls == "ldaps" else f"ldap://127.0.0.1:{slapd.port}"
    settings = slapd.settings(servers=[server], tls="none" if tls == "none" else "starttls", **login)
    assert [one.der for one in found(settings, "bob@example.net")] == [BOB]


def refused(settings: LdapSettings, word: str) -> None:
    with pytest.raises(Unavailable, match=word):
        found(settings, "bob@example.net")


@pytest.mark.parametrize("way", ["starttls", "ldaps"])
def test_attack_another_server_in_place_of_ours(slapd, way, tmp_path):
    def server(host: str) -> list[str]:
        return [f"ldaps://{host}:{slapd.tls_port}" if way == "ldaps" else f"ldap://{host}:{slapd.port}"]

    refused(slapd.settings(servers=server("127.0.0.1"), ca_file=""), "certificate verify failed")
    # The right authority, and another name.
    refused(slapd.settings(servers=server("localhost")), "(?i)host ?name mismatch|not valid for")
    (tmp_path / "none.pem").write_text("")
    refused(slapd.settings(servers=server("127.0.0.1"), ca_file=str(tmp_path / "none.pem")), "anchors")


def test_logins_that_fail_say_so_and_show_no_password(slapd, tmp_path):
    (tmp_path / "wrong").write_text("not-the-password\n")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "latin").write_bytes(b"\xfcber\n")
    login = {"bind_dn": "cn=admin,dc=example,dc=net"}
    for name, word in (("wrong", "invalidCredentials"), ("empty", "no password"), ("latin", "not UTF-8"), ("absent", "No such file")):
        settings = slapd.settings(password_file=str(tmp_path / name), **login)
        with pytest.raises(Unavailable, match=word) as error:
            found(settings, "bob@example.net")
        assert "not-the-password" not in str(error.value) + repr(error.value)


def test_the_next_server_is_asked_and_the_one_that_is_out_is_left_alone(slapd):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        out = f"ldap://127.0.0.1:{silent.getsockname()[1]}"
        settings = slapd.settings(servers=[out, f"ldap://127.0.0.1:{slapd.port}"], tls="starttls", timeout=2.0)
        runtime = FakeRuntime()
        one = directory(settings, runtime)
        assert runtime.run(one.certificates(Address.parse("bob@example.net")))
        assert one._servers._breakers.state(out.removeprefix("ldap://"), runtime.monotonic()) == "open"
        assert runtime.run(one.certificates(Address.parse("carol@example.net")))
        with pytest.raises(Unavailable, match="refused"):
            found(slapd.settings(servers=[out]), "bob@example.net")


def test_a_connection_is_kept_and_one_that_was_closed_is_made_anew(slapd):
    runtime = FakeRuntime()
    one = directory(slapd.settings(), runtime)
    bob = Address.parse("bob@example.net")
    assert runtime.run(one.certificates(bob))
    ((_, connection),) = next(iter(one._servers._idle.values()))
    kept = connection._connection.socket
    assert runtime.run(one.certificates(bob)) and connection._connection.socket is kept
    kept.inner.shutdown(socket.SHUT_RDWR)
    assert runtime.run(one.certificates(bob)) and connection._connection.socket is not kept


def test_a_base_that_does_not_exist_is_not_nobody(slapd):
    refused(slapd.settings(base="ou=typo,dc=example,dc=net"), "no entry")
    refused(slapd.settings(base="no name"), "invalidDNSyntax")


def test_attack_a_referral_leads_elsewhere(slapd):
    refused(slapd.settings(base=f"ou=elsewhere,{PEOPLE}"), "referrals are not followed")
    # One within the answer is passed over.
    assert found(slapd.settings(), "bob@example.net")


def test_recipients_are_remembered_for_a_while(slapd):
    runtime = FakeRuntime()
    one = directory(slapd.settings(), runtime)
    asked = []
    ask = one._ask

    async def counted(*arguments):
        asked.append(arguments)
        return await ask(*arguments)

    one._ask = counted
    for after in (0, 29, 2, 299):
        runtime.advance(after)
        assert runtime.run(one.exists(Address.parse("erin@example.net"))) is True
        assert runtime.run(one.exists(Address.parse("no@example.net"))) is False
    assert len(asked) == 5


GATEWAY = """
[gateway]
hostname = "gw.example.org"
domains = ["example.org"]
[database]
location = "{place}/certificates.db"
[[listener]]
address = "127.0.0.1:1"
origin = "internet"
[relay]
next_hop = "smtp://[127.0.0.1]:2"
[revocation]
mode = "off"
[plugins]
enabled = ["ldap"]
[plugin.ldap]
servers = ["ldap://127.0.0.1:{port}"]
ca_file = "{ca}"
base = "{base}"
"""


def mailsec(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-m", "mailsec", *arguments], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_cert_find_says_what_the_server_gave(slapd, tmp_path):
    database, configuration = str(tmp_path / "certificates.db"), tmp_path / "mailsec.toml"
    (tmp_path / "anchor.pem").write_bytes(pem(AUTHORITY.certificate, "CERTIFICATE"))
    code, _, err = mailsec("db", "init", "-d", database, "--no-password", "--anchors", str(tmp_path / "anchor.pem"), "--for", "any")
    assert code == 0, err
    configuration.write_text(GATEWAY.format(place=tmp_path, port=slapd.port, ca=slapd.place / "ca.pem", base=PEOPLE))
    code, out, err = mailsec("cert", "find", "carol@example.net", "--explain", "-c", str(configuration))
    assert code == 0, out + err
    assert f"ldap (uid=carol,{PEOPLE})" in out and "1 certificate" in out
    configuration.write_text(configuration.read_text().replace(str(slapd.place / "ca.pem"), str(tmp_path / "anchor.pem")))
    code, out, err = mailsec("cert", "find", "carol@example.net", "--explain", "-c", str(configuration))
    assert code == 75 and "cannot say" in out and "certificate verify failed" in out


@pytest.mark.interop
def test_serve_refuses_at_rcpt_whom_the_server_does_not_know(slapd, tmp_path):
    assert mailsec("db", "init", "-d", str(tmp_path / "certificates.db"), "--no-password", "--anchors", "none")[0] == 0
    port, configuration = free_port(), tmp_path / "mailsec.toml"
    text = GATEWAY.format(place=tmp_path, port=slapd.port, ca=slapd.place / "ca.pem", base=PEOPLE)
    text = text.replace("127.0.0.1:1", f"127.0.0.1:{port}", 1).replace("example.org", "example.net")
    configuration.write_text(f'{text}recipients = ["example.net"]\n[spool]\ndirectory = "{tmp_path}/spool"\n')
    serving = subprocess.Popen([sys.executable, "-m", "mailsec", "serve", "-c", str(configuration)], stderr=subprocess.PIPE)
    try:
        for line in serving.stderr:
            if b'"ready"' in line:
                break
        with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
            client.ehlo("peer.example")
            client.mail("a@other.example")
            assert [client.rcpt(who)[0] for who in ("Erin@example.net", "nobody@example.net", "*@example.net")] == [250, 550, 550]
    finally:
        serving.terminate()
        serving.communicate(timeout=30)


# -- revocation lists -----------------------------------------------------------------------------------------------------------


def lists(settings: LdapSettings, *urls: str, runtime: FakeRuntime | None = None) -> list[bytes]:
    runtime = runtime or FakeRuntime()
    source = LdapLists(settings, runtime, Servers(runtime, seconds=settings.timeout, connections=1, ca_file=settings.ca_file))
    offered = tuple(source.addresses(EvidenceRequest("crl", b"", urls=urls)))
    return [one.data for one in runtime.run(source.evidence(EvidenceRequest("crl", b"", urls=offered)))]


def test_a_list_of_our_own_server(slapd):
    for url in (
        f"ldap:///{LIST}?certificateRevocationList;binary",
        f"ldap://127.0.0.1/{LIST}?certificateRevocationList?base?objectClass=*",
    ):
        assert lists(slapd.settings(), url) == [CRL]
    for entry in (f"cn=Empty,{PEOPLE}", "cn=None,dc=example,dc=net", f"uid=bob,{PEOPLE}"):
        with pytest.raises(Unavailable):
            lists(slapd.settings(), f"ldap:///{entry}")


def test_whoever_is_on_the_list_gets_no_mail_and_a_list_that_cannot_be_had_is_waited_for(slapd):
    people = MemoryDirectory(*(FoundCertificate(one, "memory") for one in (FRANK, GRACE, HEIDI)))
    gate = MemoryGateway(
        people,
        LdapPlugin(),
        trust=MemoryTrust(AUTHORITY.anchor),
        runtime=FakeRuntime(datetime.now(UTC)),
        revocation=RevocationSettings(),
        plugins={"ldap": slapd.settings(base="", recipients=[])},
    )

    def ask(who: str) -> tuple[bool, list[str]]:
        known = gate.runtime.run(gate.pipeline.correspondent(Address.parse(who)))
        return bool(known.chosen), [one.reason.code for one in known.others]

    assert ask("frank@example.net") == (True, [])
    assert ask("grace@example.net") == (False, ["recipient-revoked"])
    assert ask("heidi@example.net") == (False, ["revocation-unknown"])


def test_a_list_of_another_server_comes_from_the_address_that_was_checked(slapd):
    runtime = FakeRuntime()
    asked = []

    async def checked(host):
        asked.append(host)
        return ["127.0.0.1"]

    runtime.public_addresses = checked
    settings = LdapSettings(list_servers=[f"ca.example:{slapd.port}"])
    # The name itself leads nowhere here: what was checked is what is connected to.
    assert lists(settings, f"ldap://ca.example:{slapd.port}/{LIST}", runtime=runtime) == [CRL] and asked == ["ca.example"]
