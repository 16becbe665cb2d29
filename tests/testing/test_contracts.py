"""The contracts hold for what mailsec itself brings, and catch those who break them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mailsec.app.database_plugin import DatabasePlugin
from mailsec.model.address import Address
from mailsec.store.certdb import CertDb
from mailsec.store.scratch import FileScratch
from mailsec.testing.authority import Authority, MemoryDirectory, MemoryKeys
from mailsec.testing.contracts import check_certificate_directory, check_key_store, check_recipient_directory, check_scratch
from mailsec.testing.memory import MemoryScratch
from mailsec.testing.runtime import EPOCH, FakeRuntime
from mailsec.x509.issue import issue_mail, make_key, public_key_of

ALICE, BOB = Address.parse("alice@example.org"), Address.parse("bob@example.org")


def test_key_store_in_memory():
    check_key_store(MemoryKeys(Authority().issue("alice@example.org")), FakeRuntime().run, ALICE, BOB)


def test_key_store_of_the_database(tmp_path):
    authority, runtime, key = Authority(), FakeRuntime(), make_key("ec-p256")
    certificate = issue_mail(
        authority.issuer, addresses=[ALICE], public_key=public_key_of(key), at=EPOCH - timedelta(days=1), random=authority.random
    )
    with CertDb.create(str(tmp_path / "mailsec.db"), b"secret", at=EPOCH, cost=2**10) as database:
        database.add(certificate, "alice", private_key=key, at=EPOCH)
        (store,) = DatabasePlugin(database, runtime).register_key_stores()
        check_key_store(store, runtime.run, ALICE, BOB)


def test_certificate_directories_in_memory_and_of_the_database(tmp_path):
    runtime, bob = FakeRuntime(), Authority().issue("bob@example.org")
    check_certificate_directory(MemoryDirectory.of(bob), runtime.run, BOB, ALICE)
    with CertDb.create(str(tmp_path / "mailsec.db"), b"secret", at=EPOCH, cost=2**10) as database:
        database.add(bob.certificate, "bob", at=EPOCH)
        (directory,) = DatabasePlugin(database, runtime).register_certificate_directories()
        check_certificate_directory(directory, runtime.run, BOB, ALICE)


def test_certificate_directory_that_gives_anybody_the_same_is_caught():
    class Careless(MemoryDirectory):
        async def certificates(self, address):
            return self.found

    with pytest.raises(AssertionError, match="not known"):
        check_certificate_directory(Careless.of(Authority().issue("bob@example.org")), FakeRuntime().run, BOB, ALICE)


def test_key_store_that_offers_a_key_to_everybody_is_caught():
    class Careless(MemoryKeys):
        async def keys_for(self, address, usage):
            return self.keys

    with pytest.raises(AssertionError, match="stranger"):
        check_key_store(Careless(Authority().issue("alice@example.org")), FakeRuntime().run, ALICE, BOB)


def test_key_store_whose_key_is_not_the_certificates_is_caught():
    authority = Authority()
    right, other = authority.issue("alice@example.org"), authority.issue("alice@example.org")
    wrong = type("Wrong", (), {name: getattr(right, name) for name in ("name", "key_type", "bits", "assigned", "can", "sign")})()
    wrong.certificate = other.certificate
    with pytest.raises(AssertionError, match="certificate's"):
        check_key_store(MemoryKeys(wrong), FakeRuntime().run, ALICE, BOB)


class Directory:
    name = "directory"

    def __init__(self, fold: bool) -> None:
        self.fold = fold

    async def exists(self, address):
        if address.domain.lower() != "example.org":
            return None
        return (address.key if self.fold else str(address)) == "alice@example.org"


def test_recipient_directory():
    foreign = Address.parse("alice@example.net")
    check_recipient_directory(Directory(True), FakeRuntime().run, ALICE, BOB, foreign)
    with pytest.raises(AssertionError, match="without case"):
        check_recipient_directory(Directory(False), FakeRuntime().run, ALICE, BOB, foreign)


def test_scratch_in_memory_and_in_files(tmp_path):
    check_scratch(MemoryScratch)
    check_scratch(lambda: FileScratch(str(tmp_path)))
