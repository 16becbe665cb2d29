"""`[log] privacy`, `mailsec log find`, and log files that are rotated."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.app.pseudonyms import Pseudonyms, log_key

from .conftest import PROJECT

KEY = log_key(b"k" * 32)
SCRIPT = """
import json, sys, structlog
from mailsec.app.config.models import Log
from mailsec.app.logs import configure_logs
configure_logs(Log(format=sys.argv[1], file=sys.argv[2], privacy=sys.argv[3]), data_key=b"k" * 32)
log = structlog.get_logger()
for line in sys.stdin:
    log.info("received", **json.loads(line))
    print("written", flush=True)
"""


def written(tmp_path: Path, privacy: str, *fields: dict, format: str = "json") -> str:
    file = tmp_path / f"{format}-{privacy}"
    subprocess.run(
        [sys.executable, "-c", SCRIPT, format, str(file), privacy],
        input="".join(json.dumps(one) + "\n" for one in fields),
        text=True,
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    return file.read_text()


LINE = {
    "reverse_path": "alice@example.org",
    "recipients": ["Bob@partner.example", '"bob smith"@partner.example', "ünder@partner.example"],
    "user": "alice",
    "peer": "192.0.2.7",
    "message_id": "<1@host.example>",
    "reason": "550 5.1.1 <bob@partner.example>: no such user; ask alice@example.org.",
    "size": 7,
    "nested": {"to": ["alice@example.org"]},
}


@pytest.mark.parametrize("format", ["json", "text"])
def test_pseudonyms_replace_people_wherever_they_stand_and_keep_domains(tmp_path, format):
    text = written(tmp_path, "pseudonym", LINE, format=format)
    assert "alice" not in text and "bob" not in text.lower() and "ünder" not in text and "\\u00fcnder" not in text
    assert "@partner.example" in text and "192.0.2.7" in text and "1@host.example" in text and "550 5.1.1" in text
    assert text.count(Pseudonyms(KEY, strict=False).of("alice@example.org")) == 3
    assert written(tmp_path, "none", LINE, format=format).count("alice@example.org") == 3


def test_strict_leaves_no_host_domain_or_message_id(tmp_path):
    value = json.loads(written(tmp_path, "strict", LINE))
    text = json.dumps(value)
    for word in ("alice", "bob", "example", "192.0.2.7"):
        assert word not in text.lower()
    assert value["reverse_path"] == value["nested"]["to"][0] and value["size"] == 7


def test_a_null_path_is_nobody(tmp_path):
    assert json.loads(written(tmp_path, "strict", {"reverse_path": "<>"}))["reverse_path"] == "<>"


def test_one_person_is_one_pseudonym_and_another_key_gives_another():
    one = Pseudonyms(KEY, strict=True)
    assert one.of("Alice@Example.org") == one.of("alice@example.ORG") == one.of('"alice"@example.org') != one.of("alicf@example.org")
    assert Pseudonyms(log_key(b"j" * 32), strict=True).of("alice@example.org") != one.of("alice@example.org")
    assert Pseudonyms(b"", strict=True).of("alice@example.org") == "~"


@given(
    before=st.text(alphabet=" <>,;:()'\"abc.", max_size=8),
    local=st.from_regex(r"\A[a-z0-9!#$%&*+/=?^_{|}~\u00e0-\u00f6-]{3,12}\Z"),
    after=st.text(alphabet=' <>,;:()"', max_size=8),
)
def test_attack_no_address_in_a_reply_of_another_host_survives(before, local, after):
    hidden = Pseudonyms(KEY, strict=True).in_text(f"{before} {local}@secret.example{after}")
    assert f"{local}@" not in hidden and "secret.example" not in hidden


def test_log_find_finds_a_person_in_each_kind_of_log_and_nobody_else(mailsec, folder, database):
    from mailsec.store.certdb import CertDb

    with CertDb.open(database) as opened:
        key = log_key(opened.data_key)
    lines = {
        "none.log": "received from alice@example.org",
        "pseudonym.log": f"received from {Pseudonyms(key, strict=False).of('alice@example.org')}",
        "strict.log": f"received from {Pseudonyms(key, strict=True).of('alice@example.org')}",
    }
    for name, line in lines.items():
        Path(name).write_text(f"{line}\nreceived from malice@example.org\nreceived from alice@example.organ\n")
    with gzip.open("old.gz", "wt") as file:
        file.write("delivered to ALICE@example.org\n")
    code, out, _ = mailsec("log", "find", "-d", database, "--json", "Alice@example.org", *lines, "old.gz")
    found = json.loads(out)
    assert code == 0 and found["lines"] == [*lines.values(), "delivered to ALICE@example.org"]
    assert mailsec("log", "find", "-d", database, "carol@example.org", "none.log")[0] == 1
    for wrong in ("carol@", "carol and bob", ""):
        code, _, err = mailsec("log", "find", "-d", database, wrong, "none.log")
        assert code == 2 and "name@domain" in err
    code, _, err = mailsec("log", "find", "-d", database, "carol@example.org", "absent.log")
    assert code == 3 and "absent.log" in err


def test_log_find_finds_a_login_that_is_no_address_and_no_address_that_begins_with_it(mailsec, folder, database):
    from mailsec.store.certdb import CertDb

    with CertDb.open(database) as opened:
        pseudonym = Pseudonyms(log_key(opened.data_key), strict=False).of("alice")
    lines = ['{"event": "login refused", "user": "alice"}', f'{{"event": "login refused", "user": "{pseudonym}"}}']
    others = ['{"reverse_path": "alice@example.org"}', '{"user": "malice"}', '{"user": "alice-2"}']
    Path("some.log").write_text("\n".join([*lines, *others]) + "\n")
    code, out, _ = mailsec("log", "find", "-d", database, "--json", "alice", "some.log")
    assert code == 0 and json.loads(out)["lines"] == lines


def test_a_rotated_file_is_made_anew_by_a_process_that_nobody_told(tmp_path):
    file = tmp_path / "log"
    script = SCRIPT.replace("log = struct", "from mailsec.app import logs; logs._LOOK_SECONDS = 0\nlog = struct")
    command = [sys.executable, "-c", script, "json", str(file), "none"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:

        def write(**fields: object) -> None:
            process.stdin.write(json.dumps(fields) + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == "written\n"

        write(number=1)
        file.rename(tmp_path / "log.1")
        write(number=2)
        (tmp_path / "log").unlink()
        write(number=3)
        process.stdin.close()
    assert '"number": 1' in (tmp_path / "log.1").read_text() and "2" not in (tmp_path / "log.1").read_text().split("number")[1]
    assert '"number": 3' in file.read_text() and '"number": 2' not in file.read_text()
    assert file.stat().st_mode & 0o777 & 0o007 == 0
