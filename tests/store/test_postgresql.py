"""What only a server can do to us: it restarts, it is away, others hold rows, several processes write at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mailsec.errors import SchemaError, StoreError, UsageError
from mailsec.store.certdb import CertDb
from tests.peers.postgres import start_postgres

PROJECT = Path(__file__).resolve().parents[2]
WRITER = """
import sys
from mailsec.store.certdb import CertDb
url, key, name = sys.argv[1:]
with CertDb.open(url, data_key=bytes.fromhex(key), busy_timeout=60) as database:
    for count in range(8):
        database.add_user(f"{name}-{count}@example.org", b"secret", iterations=4096)
        assert all(user.verified for user in database.users())
"""


def test_several_processes_at_once_keep_the_sums_right(db, path):
    """On both databases: the writers are processes of their own."""
    command = [sys.executable, "-c", WRITER, path, db.data_key.hex()]
    writers = [subprocess.Popen([*command, f"writer{number}"], cwd=PROJECT) for number in range(3)]
    for writer in writers:
        assert writer.wait(120) == 0
    assert len(db.users()) == 24 and all(user.verified for user in db.users()) and db.check() == ()


@pytest.fixture(scope="module")
def own_server():
    server = start_postgres()
    yield server
    server.stop()


def test_a_server_that_was_restarted_is_used_again_without_ado(own_server, at):
    with CertDb.create(own_server.new(), b"opensesame", at=at, cost=2**10) as db:
        db.add_user("a@example.org", b"secret", at=at, iterations=4096)
        own_server.restart()
        assert db.check_password("a@example.org", b"secret") is not None
        db.add_user("b@example.org", b"secret", at=at, iterations=4096)
        assert db.check() == ()


def test_a_server_that_is_away_is_a_temporary_error_with_a_hint(tmp_path):
    for url in (f"postgresql+psycopg://mailsec@/x?host={tmp_path}", "postgresql+psycopg://mailsec@127.0.0.1:1/x"):
        with pytest.raises(StoreError, match="cannot be reached") as caught:
            CertDb.open(url, password=b"x")
        assert caught.value.temporary and caught.value.exit_code == 75 and caught.value.hint


def test_a_database_or_a_role_that_is_not_there_is_said_so(postgres):
    for url in (postgres.url("absent"), postgres.url("postgres").replace("mailsec@", "nobody@")):
        with pytest.raises(StoreError, match="does not exist") as caught:
            CertDb.open(url, password=b"x")
        assert "\n" not in caught.value.message and caught.value.hint


def test_an_empty_or_foreign_database_is_not_ours(postgres):
    url = postgres.new()
    with pytest.raises(SchemaError, match="not a mailsec database"):
        CertDb.open(url, password=b"x")
    with pytest.raises(SchemaError, match="not a mailsec database"):
        CertDb.upgrade(url)


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    "planted",
    [
        "CREATE RULE r AS ON INSERT TO users DO INSTEAD NOTHING",
        "CREATE VIEW v AS SELECT * FROM users",
        (
            "CREATE FUNCTION f() RETURNS trigger AS $$ BEGIN RETURN NULL; END $$ LANGUAGE plpgsql;"
            " CREATE TRIGGER t BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION f()"
        ),
    ],
)
def test_a_rule_trigger_or_view_that_was_planted_on_the_server_is_refused(db, path, attack, planted):
    attack(planted)
    with pytest.raises(SchemaError, match="trigger or view"):
        CertDb.open(path, password=b"opensesame")


def test_what_a_server_cannot_store_is_an_error_of_ours(db, at):
    with pytest.raises(UsageError):
        db.add_user("a\0b@example.org", b"secret", ["a@example.org"], at=at, iterations=4096)
    assert db.find("a\0b") == []
