"""Attacks on the database by somebody who can write its file but does not know the data key, and odd files.

What was edited shows, and decides nothing: no anchor, no key, no login.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from mailsec.errors import CertificateError, MailsecError, SchemaError, StoreError, Tampered, UsageError, WrongPassphrase
from mailsec.model.address import Address
from mailsec.model.trust import TrustFlags
from mailsec.store.certdb import CertDb
from mailsec.store.ledger import encode_row
from mailsec.store.nicknames import make_nickname
from mailsec.store.schema import AUTHENTICATED, meta
from tests.store.backends import sqlite_only

ALICE, BOB = Address.parse("alice@example.org"), Address.parse("bob@example.org")


@pytest.fixture
def filled(db, ca, issue, at):
    alice, bob = issue("alice@example.org"), issue("bob@example.org")
    db.add(ca.der, "CA", trust=TrustFlags.parse("C,C,"), domains=("example.org",), at=at)
    db.add(alice.der, "alice", private_key=alice.key, at=at)
    db.add(bob.der, "bob", private_key=bob.key, assigned=["bob@example.org"], at=at)
    db.add_user("alice@example.org", b"secret", at=at, iterations=4096)
    db.add_user("bob@example.org", b"secret", at=at, iterations=4096)
    return db


def plant(connection, wrapping: str) -> None:
    connection.execute(update(meta).where(meta.c.name == "data-key").values(value=wrapping))


def reopened(path: str) -> CertDb:
    return CertDb.open(path, password=b"opensesame")


# -- edited rows --------------------------------------------------------------------------------------------------------------


def test_a_trust_flag_that_was_flipped_makes_no_anchor(filled, path, attack):
    attack("UPDATE certificates SET trust_email = 'C', domains = '[\"*\"]' WHERE nickname = 'alice'")
    for db in (filled, reopened(path)):
        assert [anchor.domains for anchor in db.anchors("email")] == [("example.org",)]
        assert [entry.nickname for entry in db.entries() if not entry.verified] == ["alice"]
        assert "certificates" in " ".join(db.check())


def test_a_distrust_that_was_taken_away_leaves_no_anchor(filled, path, attack):
    filled.set_trust("CA", TrustFlags.parse("C,Cp,"), domains=["example.org"])
    attack("UPDATE certificates SET trust_email = 'C' WHERE nickname = 'CA'")
    assert reopened(path).anchors("email") == ()


def test_a_distrust_that_was_taken_away_is_not_forgotten(filled, path, attack, issue, at):
    bad = issue("mallory@example.org")
    filled.add(bad.der, "bad", trust=TrustFlags.parse("p,p,p"), at=at)
    assert filled.distrusted() == (bad.der,)
    attack("UPDATE certificates SET trust_email = '' WHERE nickname = 'bad'")
    with pytest.raises(Tampered, match="distrust"):
        filled.distrusted()


def test_domains_of_an_anchor_that_were_widened_make_no_anchor(filled, attack):
    attack("UPDATE certificates SET domains = '[\"*\"]' WHERE nickname = 'CA'")
    assert filled.anchors("email") == ()


def test_a_user_who_gave_himself_more_addresses_does_not_log_in(filled, attack):
    attack("UPDATE users SET addresses = '[\"*\"]' WHERE login = 'bob@example.org'")
    with pytest.raises(Tampered):
        filled.check_password("bob@example.org", b"secret")
    assert filled.check_password("alice@example.org", b"secret") is not None
    assert [(user.login, user.verified) for user in filled.users()] == [("alice@example.org", True), ("bob@example.org", False)]


def test_a_disabled_user_who_enabled_himself_does_not_log_in(filled, attack):
    filled.set_disabled("bob@example.org", True)
    assert filled.check_password("bob@example.org", b"secret") is None
    attack("UPDATE users SET disabled = false WHERE login = 'bob@example.org'")
    with pytest.raises(Tampered):
        filled.check_password("bob@example.org", b"secret")


def test_the_verifier_of_somebody_else_does_not_log_in(filled, attack):
    columns = ("salt", "iterations", "stored_key", "server_key", "mac")
    attack(*(f"UPDATE users SET {name} = (SELECT {name} FROM users WHERE login LIKE 'bob%') WHERE login LIKE 'alice%'" for name in columns))
    with pytest.raises(Tampered):
        filled.check_password("alice@example.org", b"secret")


@sqlite_only
def test_private_keys_that_were_swapped_between_rows_are_refused(filled, attack):
    attack(
        "CREATE TEMP TABLE swap AS SELECT id, sealed, mac FROM private_keys",
        "UPDATE private_keys SET sealed = (SELECT sealed FROM swap WHERE swap.id != private_keys.id),"
        " mac = (SELECT mac FROM swap WHERE swap.id != private_keys.id)",
    )
    entry = filled.find("alice")[0]
    assert not entry.verified and filled.assigned_to(ALICE) == []
    with pytest.raises(Tampered):
        filled.private_key(entry)


def test_a_key_row_that_took_another_id_is_refused(filled, attack):
    attack("UPDATE private_keys SET id = 99 WHERE id = 1")
    with pytest.raises(Tampered):
        filled.private_key(filled.find("alice")[0])


def test_a_sealed_key_opens_only_in_its_own_row(filled):
    with filled.reading() as connection:
        rows = connection.exec_driver_sql("SELECT id, key_id, sealed FROM private_keys ORDER BY id").all()
    key = filled._key
    place = b"private_keys|%d|" % rows[0].id + rows[0].key_id
    assert key.unseal("private key", rows[0].sealed, place)
    for other in (b"private_keys|%d|" % rows[1].id + rows[0].key_id, b"private_keys|%d|" % rows[0].id + rows[1].key_id, b""):
        with pytest.raises(Tampered):
            key.unseal("private key", rows[0].sealed, other)
    with pytest.raises(Tampered):
        key.unseal("ledger", rows[0].sealed, place)


def test_an_address_that_was_planted_on_a_certificate_is_not_its_own(filled, attack, at):
    attack("UPDATE certificate_addresses SET address = 'bob@example.org' WHERE address = 'alice@example.org'")
    assert [entry.nickname for entry in filled.for_address(BOB, at=at)] == ["bob"]
    assert [entry.nickname for entry in filled.assigned_to(BOB, at=at)] == ["bob"]
    assert not filled.find("alice")[0].verified


def test_an_assignment_that_was_widened_gives_no_key(filled, attack, at):
    attack("UPDATE assignments SET pattern = '*'")
    # Not even hers: the row may have been one of her key's, whose certificate names more than it was for.
    assert filled.assigned_to(ALICE, at=at) == []


def test_an_assignment_that_was_edited_does_not_give_the_key_to_whom_its_certificate_names(filled, attack):
    """The row is not believed; passed over, it would leave a key that was for sales only to everybody in its certificate."""
    filled.assign_key(filled.find_key("bob").key_id, ["sales@example.org"], usage="")
    assert filled.assigned_to(BOB) == []
    attack("UPDATE assignments SET pattern = 'nobody@example.net' WHERE pattern LIKE '%example.org'")
    assert filled.assigned_to(BOB) == [] and not filled.find("bob")[0].verified
    assert [key.verified for key in filled.stored_keys() if "bob" in key.nicknames] == [False]


@pytest.mark.parametrize("change", ["key_id = :other", "key_id = :key_of_alice"])
def test_attack_an_assignment_that_was_moved_to_another_key_does_not_widen_its_own(filled, path, attack, at, change):
    """Nobody who asks by the key's id finds the row any more: without it the key would be for whomever its certificate names."""
    filled.assign_key(filled.find_key("bob").key_id, ["sales@example.org"])
    parameter = change.split(":")[1]
    attack(f"UPDATE assignments SET {change}", **{parameter: b"x" * 32 if parameter == "other" else filled.find_key("alice").key_id})
    for db in (filled, reopened(path)):
        assert db.assigned_to(BOB, at=at) == [] and not db.find("bob")[0].verified
        assert [key.nicknames for key in db.stored_keys() if key.verified] == []
        assert [entry.verified for entry in db.find("CA")] == [True], "no key here: nothing was assigned"


def test_attack_a_moved_assignment_leaves_alone_the_keys_that_still_have_theirs(filled, attack, at):
    filled.assign_key(filled.find_key("alice").key_id, ["@example.org"])
    attack("UPDATE assignments SET key_id = :other WHERE pattern = 'bob@example.org'", other=b"x" * 32)
    assert [entry.nickname for entry in filled.assigned_to(ALICE, at=at)] == ["alice"]
    assert [entry.nickname for entry in filled.assigned_to(BOB, at=at)] == ["alice"]


def test_an_address_that_was_added_without_a_mac_voids_the_table(filled, attack, at):
    attack("INSERT INTO certificate_addresses VALUES (77, 2, 'ceo@example.org', false, x'00')")
    assert filled.for_address(Address.parse("ceo@example.org"), at=at) == []
    with pytest.raises(Tampered):
        filled.anchors("email")


def test_a_certificate_of_the_attacker_in_the_place_of_another_is_not_verified(filled, attack, issue):
    mallory = issue("alice@example.org", key="mallory")
    attack(
        "UPDATE certificates SET der = :der, sha256 = :sha256 WHERE nickname = 'alice'",
        der=mallory.der,
        sha256=hashlib.sha256(mallory.der).digest(),
    )
    assert not filled.find("alice")[0].verified and filled.for_address(ALICE) == []


@sqlite_only
@pytest.mark.parametrize("value", ["1.5", "'text'", "NULL", "x'00'", "CAST(x'ff80' AS TEXT)", "-1", "9223372036854775807"])
@pytest.mark.parametrize(
    "column", ["certificates.learnt_at", "certificates.trust_email", "certificates.domains", "certificates.der", "certificates.nickname",
               "certificates.key_id", "certificates.not_before", "users.addresses", "users.created_at", "users.disabled", "users.mac",
               "ledger.changes", "ledger.sealed", "meta.value", "private_keys.sealed", "private_keys.key_id", "certificates.mac"]
)  # fmt: skip
def test_any_type_in_any_column_ends_in_a_value_or_one_of_our_errors(filled, path, attack, column, value):
    table, name = column.split(".")
    try:
        attack(
            "PRAGMA ignore_check_constraints = ON",
            f"UPDATE {table} SET {name} = {value} WHERE rowid = {1 if table in ('ledger', 'meta') else 2}",
        )
    except sqlite3.IntegrityError:
        pytest.skip("SQLite itself refuses that")
    for ask in (
        lambda: CertDb.open(path, password=b"opensesame").close(),
        filled.entries,
        filled.users,
        filled.check,
        lambda: filled.find("CA"),
        lambda: filled.find("alice"),
        lambda: [filled.private_key(entry) for entry in filled.find("alice")],
        lambda: filled.anchors("email"),
        filled.authorities,
        lambda: filled.for_address(ALICE),
        lambda: filled.check_password("alice@example.org", b"secret"),
        lambda: filled.set_trust("CA", TrustFlags.parse("C,,")),
    ):
        with contextlib.suppress(MailsecError):
            ask()


# -- rows that went, or came back -----------------------------------------------------------------------------------------------


def test_a_distrust_row_that_was_deleted_shows(filled, path, attack, issue, at):
    bad = issue("mallory@example.org")
    filled.add(bad.der, "bad", trust=TrustFlags.parse("p,p,p"), at=at)
    attack("DELETE FROM certificate_addresses WHERE certificate_id = 4", "DELETE FROM certificates WHERE nickname = 'bad'")
    for db in (filled, reopened(path)):
        with pytest.raises(Tampered, match="rows where mailsec wrote"):
            db.anchors("email")
        with pytest.raises(Tampered):
            db.distrusted()
        assert not any(entry.verified for entry in db.entries())


def test_rows_that_went_show_also_after_our_own_changes(filled, attack, at):
    assert len(filled.users()) == 2 and filled.check() == ()
    attack("DELETE FROM users WHERE login LIKE 'bob%'")
    filled.set_trust("CA", TrustFlags.parse("C,,"))
    assert not any(user.verified for user in filled.users())
    with pytest.raises(Tampered):
        filled.check_password("alice@example.org", b"secret")


def test_a_user_that_was_deleted_keeps_all_users_out_until_a_person_looks(filled, attack):
    attack("DELETE FROM users WHERE login LIKE 'bob%'")
    with pytest.raises(Tampered) as caught:
        filled.check_password("alice@example.org", b"secret")
    assert "db check" in caught.value.hint and caught.value.temporary
    with pytest.raises(Tampered):
        filled.add_user("bob@example.org", b"attacker", iterations=4096)


@sqlite_only
def test_a_table_rolled_back_to_an_old_copy_of_its_rows_shows(filled, path, attack, tmp_path):
    shutil.copy(path, tmp_path / "old.db")
    shutil.copy(path + "-wal", tmp_path / "old.db-wal")
    filled.set_trust("CA", TrustFlags.parse(",p,"))
    attack(
        f"ATTACH '{tmp_path}/old.db' AS old",
        "PRAGMA foreign_keys = OFF",
        "DELETE FROM certificates",
        "INSERT INTO certificates SELECT * FROM old.certificates",
    )
    assert filled.find("CA")[0].trust.email == "C" and not filled.find("CA")[0].verified
    with pytest.raises(Tampered, match="rows that mailsec did not write"):
        reopened(path).anchors("email")


@sqlite_only
def test_a_table_rolled_back_with_the_old_ledger_shows_in_the_other_tables(filled, path, attack, tmp_path, at):
    shutil.copy(path, tmp_path / "old.db")
    shutil.copy(path + "-wal", tmp_path / "old.db-wal")
    filled.remove_user("bob@example.org")
    filled.set_trust("CA", TrustFlags.parse(",p,"))
    attack(
        f"ATTACH '{tmp_path}/old.db' AS old",
        "DELETE FROM users",
        "INSERT INTO users SELECT * FROM old.users",
        "DELETE FROM ledger",
        "INSERT INTO ledger SELECT * FROM old.ledger",
    )
    with pytest.raises(Tampered):
        reopened(path).anchors("email")
    with pytest.raises(Tampered, match="back in time"):
        filled.check_password("bob@example.org", b"secret")


@sqlite_only
def test_the_whole_file_put_back_is_noticed_by_whoever_saw_the_new_one(filled, path, attack, tmp_path):
    shutil.copy(path, tmp_path / "old.db")
    shutil.copy(path + "-wal", tmp_path / "old.db-wal")
    filled.set_disabled("bob@example.org", True)
    tables = [*AUTHENTICATED, "ledger"]
    attack(f"ATTACH '{tmp_path}/old.db' AS old", "PRAGMA foreign_keys = OFF",
           *(f"DELETE FROM {table}" for table in tables), *(f"INSERT INTO {table} SELECT * FROM old.{table}" for table in tables))  # fmt: skip
    with pytest.raises(Tampered, match="back in time"):
        filled.check_password("bob@example.org", b"secret")
    with pytest.raises(Tampered, match="back in time"):
        filled.set_disabled("alice@example.org", True)


def test_a_ledger_that_was_edited_or_deleted_shows(filled, path, attack):
    attack("UPDATE ledger SET changes = changes + 1")
    with pytest.raises(Tampered, match="number of changes"):
        reopened(path)
    attack("DELETE FROM ledger")
    with pytest.raises(Tampered, match="ledger is gone"):
        reopened(path)
    with pytest.raises(Tampered):
        filled.set_disabled("alice@example.org", True)


def test_an_edited_row_does_not_become_right_by_changing_it(filled, attack):
    attack("UPDATE certificates SET domains = '[\"*\"]' WHERE nickname = 'CA'")
    with pytest.raises(Tampered):
        filled.set_trust("CA", TrustFlags.parse(",C,"), domains=["example.org"])
    attack("UPDATE users SET addresses = '[\"*\"]' WHERE login LIKE 'bob%'")
    with pytest.raises(Tampered):
        filled.set_password("bob@example.org", b"new", iterations=4096)


def test_a_person_may_accept_what_is_left(filled, attack):
    attack(
        "UPDATE certificates SET trust_email = 'C' WHERE nickname = 'alice'",
        "DELETE FROM users WHERE login LIKE 'bob%'",
        "INSERT INTO certificate_addresses VALUES (77, 1, 'ceo@example.org', false, x'00')",
    )
    assert filled.check()
    assert filled.accept() == 2
    assert filled.check() == ()
    assert [entry.nickname for entry in filled.entries()] == ["CA", "bob"]
    assert filled.check_password("alice@example.org", b"secret") is not None


# -- odd files ----------------------------------------------------------------------------------------------------------------


def test_a_foreign_sqlite_file_is_not_ours(tmp_path):
    tmp_path.chmod(0o700)
    path = tmp_path / "cert9.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE nssPublic (id PRIMARY KEY UNIQUE ON CONFLICT ABORT, a0)")
    connection.commit()
    connection.close()
    path.chmod(0o600)
    with pytest.raises(SchemaError, match="not a mailsec database"):
        CertDb.open(str(path), password=b"x")


@pytest.mark.parametrize("content", [b"", b"hello", b"SQLite format 3\x00", b"SQLite format 3\x00" + os.urandom(5000), b"\0" * 4096])
def test_a_file_that_is_no_database_is_refused(tmp_path, content):
    tmp_path.chmod(0o700)
    path = tmp_path / "x.db"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SchemaError):
        CertDb.open(str(path), password=b"x")


@sqlite_only
def test_a_torn_file_ends_in_one_of_our_errors(filled, path):
    filled.close()
    whole = Path(path).read_bytes()
    for size in (100, 512, 4096, 5000, len(whole) // 2, len(whole) - 1):
        Path(path).write_bytes(whole[:size])
        for suffix in ("-wal", "-shm"):
            Path(path + suffix).unlink(missing_ok=True)
        with contextlib.suppress(MailsecError), reopened(path) as db:
            db.check()
            db.entries()


@sqlite_only
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0), st.binary(min_size=1, max_size=64))
def test_octets_overwritten_anywhere_never_end_in_a_foreign_error(filled, path, place, octets):
    filled.close()
    pristine = Path(path + ".pristine")
    if not pristine.exists():
        sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)").connection.close()
        shutil.copy(path, pristine)
    data = bytearray(pristine.read_bytes())
    place %= len(data)
    data[place : place + len(octets)] = octets
    Path(path).write_bytes(data)
    for suffix in ("-wal", "-shm"):
        Path(path + suffix).unlink(missing_ok=True)
    try:
        with reopened(path) as db:
            db.check()
            for entry in db.entries():
                db.private_key(entry)
            db.anchors("email")
            db.check_password("alice@example.org", b"secret")
    except MailsecError:
        pass


def test_a_locked_database_is_waited_for_and_no_longer(db, path):
    with CertDb.open(path, data_key=db.data_key, busy_timeout=0.05) as waiting, db.writing():
        assert waiting.entries() == []
        with pytest.raises(StoreError, match="locked") as caught:
            waiting.add_user("a@example.org", b"secret", iterations=4096)
    assert caught.value.temporary and caught.value.hint


@sqlite_only
def test_files_and_directories_that_others_may_write_to_are_refused(db, path, tmp_path, at):
    db.close()
    Path(path).chmod(0o640)
    with pytest.raises(StoreError, match="other users may open"):
        reopened(path)
    Path(path).chmod(0o600)
    tmp_path.chmod(0o777)
    with pytest.raises(StoreError, match="other users may write"):
        reopened(path)
    with pytest.raises(StoreError, match="other users may write"):
        CertDb.create(str(tmp_path / "new.db"), b"", at=at)
    tmp_path.chmod(0o700)
    for odd in (tmp_path / "absent.db", tmp_path, tmp_path / "absent" / "x.db"):
        with pytest.raises(StoreError) as caught:
            reopened(str(odd))
        assert caught.value.hint
    with pytest.raises(StoreError, match="directory"):
        CertDb.create(str(tmp_path / "absent" / "x.db"), b"", at=at)


def test_a_planted_link_is_not_followed_when_a_database_is_made(tmp_path, at):
    tmp_path.chmod(0o700)
    (tmp_path / "x.db").symlink_to(tmp_path / "victim")
    with pytest.raises(StoreError):
        CertDb.create(str(tmp_path / "x.db"), b"", at=at)
    assert not (tmp_path / "victim").exists()


@sqlite_only
def test_a_trigger_or_view_that_was_planted_is_refused(db, path, attack):
    attack("CREATE TRIGGER t AFTER INSERT ON users BEGIN DELETE FROM users; END")
    with pytest.raises(SchemaError, match="trigger"):
        reopened(path)


@pytest.mark.parametrize("n", [2**40, 2**21, 1000, 0, -1, 1.5, "1024", None, True])
def test_a_planted_wrapping_with_huge_parameters_costs_nothing(db, path, n):
    with db.writing() as changes:
        stored = json.loads(changes.connection.exec_driver_sql("SELECT value FROM meta WHERE name = 'data-key'").scalar())
        plant(changes.connection, json.dumps(stored | {"n": n}))
    with pytest.raises(SchemaError):
        reopened(path)


@pytest.mark.parametrize("stored", ["", "{", "[]", "null", '{"version": 1}', "[" * 10000, '{"n": 1024, "r": 8, "p": 1, "salt": 7}'])
def test_a_wrapping_that_cannot_be_read_is_said_so(db, path, stored):
    with db.writing() as changes:
        plant(changes.connection, stored)
    with pytest.raises(SchemaError):
        reopened(path)


def test_the_password_of_another_database_planted_into_this_one_opens_nothing(filled, path, tmp_path, at):
    with CertDb.create(str(tmp_path / "mallory.db"), b"known", at=at, cost=2**10) as mallory, mallory.reading() as connection:
        stored = connection.exec_driver_sql("SELECT value FROM meta WHERE name = 'data-key'").scalar()
    with filled.writing() as changes:
        plant(changes.connection, stored)
    with pytest.raises(StoreError):
        CertDb.open(path, password=b"known")


# -- odd certificates and names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", " x", "x ", "a:b", "a\nb", "a\x1b[31mb", "a\u202eb", "a\u200bb", "a\x00b", "\ud800", "x" * 129, "\x7f"]
)
def test_a_nickname_with_control_characters_is_refused(db, issue, at, name):
    with pytest.raises(UsageError) as caught:
        db.add(issue("alice@example.org").der, name, at=at)
    assert (caught.value.message + caught.value.hint).isprintable()
    assert db.entries() == []


@given(st.text(max_size=300))
def test_any_text_makes_a_nickname(text):
    from mailsec.store.nicknames import check_nickname

    assert check_nickname(make_nickname(text, "imported"))


@pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x80\x00\x00", b"\0" * 1000, b"\x30\x84\xff\xff\xff\xff", b"x" * 300_000])
def test_a_huge_or_odd_certificate_is_refused(db, at, der):
    with pytest.raises(CertificateError):
        db.add(der, "odd", at=at)
    assert db.entries() == []


def test_a_certificate_with_anything_behind_it_is_refused_or_another_one(db, issue, at):
    alice = issue("alice@example.org")
    db.add(alice.der, "alice", at=at)
    with pytest.raises(CertificateError):
        db.add(alice.der + b"\0", "alice", at=at)


rows = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.text(max_size=8), st.binary(max_size=8)),
    min_size=3,
)


@given(rows, rows)
def test_two_different_rows_never_have_the_same_octets(one, other):
    def same(a: object, b: object) -> bool:
        # SQLite gives back True as 1
        return (int(a) if isinstance(a, bool) else a) == (int(b) if isinstance(b, bool) else b) and isinstance(a, int) == isinstance(b, int)

    equal = all(same(one[name], other[name]) for name in "abc")
    assert (encode_row("t", ("a", "b", "c"), one) == encode_row("t", ("a", "b", "c"), other)) == equal


def test_a_certificate_that_expired_long_ago_is_last(db, issue, at):
    old = issue("alice@example.org", at=at - timedelta(days=3000))
    db.add(old.der, "alice", private_key=old.key, at=at)
    assert [entry.nickname for entry in db.assigned_to(ALICE, "decrypt", at=at)] == ["alice"]


def test_wrong_passphrase_says_nothing_of_the_right_one(db, path):
    with pytest.raises(WrongPassphrase) as caught:
        CertDb.open(path, password=b"opensesam")
    assert "opensesam" not in caught.value.message + caught.value.hint
