"""Keys that exist in NSS databases only, made by certutil, through the running gateway; certutil goes on working there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_der_x509_csr

from mailsec.errors import TokenError
from mailsec.model.trust import TrustFlags
from mailsec.store.nssdb import NssDb
from mailsec.testing.authority import Authority
from mailsec.tokens.remote import RemoteModule
from tests.peers.gateway import Gateway, until
from tests.peers.inbox import Inbox
from tests.peers.nss import NssDirectory
from tests.peers.token_world import World, is_signed_by


class NssWorld(World):
    """dave has his key in the NSS database `first`, erin hers in `second`; one token host has both open."""

    def __init__(self, directory: Path, inbox: Inbox) -> None:
        self.inbox = inbox
        self.authority = Authority("NSS users' CA", at=datetime.now(UTC) - timedelta(days=1))
        self.certificates: dict[str, bytes] = {}
        self.first, self.second = NssDirectory(directory / "first"), NssDirectory(directory / "second")
        self.person(self.first, "dave", "-k", "rsa", "-g", "2048")
        self.person(self.second, "erin", "-k", "ec", "-q", "nistp256")
        rules = [
            {"name": "by name", "match": {"subject": "^by name"}, "sign": "required", "signer": "first:dave-2026"},
            {"name": "everybody signs", "sign": "required"},
        ]
        module = {"name": "nss", "nss": [str(self.first.path), str(self.second.path)]}
        self.gateway = Gateway(directory / "gateway", inbox.port, workers=1, module=[module], rule=rules)
        secret = directory / "gateway" / "passphrase"
        own = secret.read_text().removesuffix("\n").removeprefix("internal:")
        secret.write_text(f"internal:{own}\nfirst:one two\nsecond:one two\n")

    def person(self, nss: NssDirectory, name: str, *key: str) -> None:
        """A key that certutil makes, and a certificate for it from outside."""
        request, certificate = nss.path / "request", nss.path / "certificate"
        nss.run("certutil", "-R", "-s", f"CN={name}", "-z", str(nss.noise), "-o", str(request), *key)
        public_key = load_der_x509_csr(request.read_bytes()).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.certificates[name] = self.authority.certify(public_key, f"{name}@example.org")
        certificate.write_bytes(self.certificates[name])
        nss.run("certutil", "-A", "-n", f"{name}-2026", "-t", ",,", "-i", str(certificate))


@pytest.fixture(scope="module")
def world(tmp_path_factory, need) -> Iterator[NssWorld]:
    need("certutil", "libnss3-tools")
    with Inbox() as inbox:
        made = NssWorld(tmp_path_factory.mktemp("nss"), inbox)
        try:
            made.start()
            until(lambda: made.ready("first") and made.ready("second"), what="the databases")
            yield made
        finally:
            made.gateway.close()


@pytest.mark.parametrize(("name", "subject"), [("dave", "from dave"), ("dave", "by name"), ("erin", "from erin")])
def test_a_key_that_only_exists_in_an_nss_database_signs_mail(world: NssWorld, name: str, subject: str):
    world.send(f"{name}@example.org", subject)
    assert is_signed_by(world, world.arrived(subject), name)


@pytest.mark.parametrize("name", ["dave", "erin"])
def test_mail_that_is_encrypted_to_it_is_opened_on_the_way_in(world: NssWorld, name: str):
    world.deliver(name, world.encrypted_to(name, f"sealed for {name}"))
    assert f"the secret of sealed for {name}".encode() in world.arrived(f"sealed for {name}")
    assert [one for one in world.gateway._events("key used") if one["usage"] == "decrypt" and one["address"] == f"{name}@example.org"]


def test_certutil_writes_there_while_the_gateway_has_it_open_for_reading(world: NssWorld):
    before = (world.second.path / "cert9.db").read_bytes(), (world.second.path / "key4.db").read_bytes()
    held = Path(f"/proc/{world.host()}")
    opened = [fd.name for fd in (held / "fd").iterdir() if fd.readlink().name in ("cert9.db", "key4.db")]
    flags = [int((held / "fdinfo" / name).read_text().split("flags:")[1].split()[0], 8) for name in opened]
    assert flags and not any(flag & os.O_ACCMODE for flag in flags)
    world.person(world.first, "frank", "-k", "ec", "-q", "nistp256")
    assert world.first.trust() == {"dave-2026": "u,u,u", "frank-2026": "u,u,u"}
    world.send("dave@example.org", "after frank came")
    assert is_signed_by(world, world.arrived("after frank came"), "dave")
    assert before == ((world.second.path / "cert9.db").read_bytes(), (world.second.path / "key4.db").read_bytes())


def test_the_database_is_read_through_the_token_host_too_and_never_changed_by_it(world: NssWorld):
    socket = world.gateway.directory / "run" / "token-nss.sock"
    with NssDb(RemoteModule("nss", socket), "first", "nss:first") as database:
        (dave,) = database.find("dave-2026")
        assert dave.verified and dave.has_key and dave.der == world.certificates["dave"]
        assert database.anchors("email") == () and database.find_key("dave-2026").key_type == "rsa"
        for change in (
            lambda: database.private_key(dave),
            lambda: database.set_trust("dave-2026", TrustFlags()),
            lambda: database.rename("dave-2026", "other"),
            lambda: database.delete(dave),
            lambda: database.generate_key("ec-p256", at=datetime.now(UTC)),
        ):
            with pytest.raises(TokenError):
                change()
    assert world.first.trust()["dave-2026"] == "u,u,u"
