"""Commands with `-d nss:DIR`, beside certutil, pk12util, crlutil and modutil on the same directory."""

from __future__ import annotations

import base64
import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mailsec.keys.files import pem
from mailsec.testing.authority import Authority
from mailsec.x509.issue import make_key, public_key_of
from mailsec.x509.issue_crl import issue_crl
from tests.peers.nss import NssDirectory


def answer(result: tuple[int, str, str]) -> dict:
    code, out, err = result
    assert code == 0, err
    return json.loads(out)


def test_certificates_are_listed_shown_and_written(on, nss):
    rows = answer(on("cert", "list", "--json"))["certificates"]
    assert [(row["nickname"], row["trust"], row["has_key"], row["verified"]) for row in rows] == [
        ("Mail CA", "CTu,Cu,Cu", True, True),
        ("alice", "u,u,u", True, True),
    ]
    code, out, _ = on("cert", "list")
    assert code == 0 and "for any" in out and "alice@example.org" in out
    assert answer(on("cert", "show", "alice", "--json"))["certificates"][0]["addresses"] == ["alice@example.org"]
    written = on("cert", "export", "alice")[1]
    assert written.strip() == nss.run("certutil", "-L", "-n", "alice", "-a").replace("\r", "").strip()


def test_trust_names_and_deletions_are_certutils_too(on, nss):
    assert on("cert", "trust", "Mail CA", ",C,", "--for", "any")[0] == 0
    assert on("cert", "rename", "alice", "Alice 2026")[0] == 0
    assert nss.trust() == {"Mail CA": "u,Cu,u", "Alice 2026": "u,u,u"}
    assert answer(on("cert", "delete", "Alice 2026", "--yes", "--json"))["keys"] == 1
    assert "Alice 2026" not in nss.trust()


def test_an_anchor_there_is_for_any_domain_and_whoever_makes_one_says_so(on):
    code, _, err = on("cert", "trust", "Mail CA", ",C,")
    assert code == 2 and "--for any" in err
    code, _, err = on("cert", "trust", "Mail CA", ",C,", "--for", "example.org")
    assert code == 2 and "keeps no domains" in err and "--for any" in err


def test_keys_are_made_there_and_requests_are_made_with_them(on, nss, folder):
    made = answer(on("key", "generate", "--key", "ec-p256", "--json"))["keys"][0]
    assert made["key_id"] in nss.run("certutil", "-K")
    assert on("cert", "request", "--with", made["key_id"], "--address", "bob@example.org", "-o", "bob.csr")[0] == 0
    nss.run("certutil", "-C", "-c", "Mail CA", "-i", str(folder / "bob.csr"), "-o", str(folder / "bob.pem"), "-a", "-m", "101")
    assert on("cert", "import", "bob.pem", "--nickname", "bob")[0] == 0
    assert nss.trust()["bob"] == "u,u,u"
    assert on("key", "delete", "bob", "--yes")[0] == 0
    assert nss.trust()["bob"] == ",,"


def test_every_operation_that_mail_needs_is_done_and_right(mailsec, nss):
    """RSA v1.5, PSS and OAEP, ECDSA and ECDH, each checked in software."""
    arguments = ("--nss", "nss", "--pin-file", "nsspw", "--json")
    tried = answer(mailsec("token", "selftest", "NSS Certificate DB", *arguments))["operations"]
    assert all(row["good"] for row in tried)
    wanted = {"rsassa-pkcs1-v1_5", "rsassa-pss", "ecdsa", "rsaes-pkcs1-v1_5", "rsaes-oaep", "ecdh"}
    assert wanted == {row["operation"].split()[0] for row in tried}


def test_messages_are_signed_checked_encrypted_and_opened_with_its_keys(on, nss, folder):
    (folder / "plain.eml").write_text("From: alice@example.org\nTo: alice@example.org\nSubject: x\n\nhello\n")
    assert on("smime", "sign", "plain.eml", "--opaque", "-o", "signed.eml")[0] == 0
    (folder / "signed.p7m").write_bytes(base64.b64decode((folder / "signed.eml").read_bytes().partition(b"\r\n\r\n")[2]))
    assert "GoodSignature" in nss.run("cmsutil", "-D", "-h", "1", "-i", str(folder / "signed.p7m"))
    assert answer(on("smime", "verify", "signed.eml", "--json"))["trusted"] is True
    assert on("smime", "encrypt", "signed.eml", "--to", "alice@example.org", "-o", "sealed.eml")[0] == 0
    opened = answer(on("smime", "decrypt", "sealed.eml", "--json"))
    assert (opened["decrypted"] is True and b"hello" in base64.b64decode(opened["plaintext_b64"])) or opened["trusted"]
    code, _, err = on("smime", "sign", "plain.eml", "--signer", "nobody")
    assert code == 1 and "nobody" in err


def test_files_go_to_pk12util_and_come_from_it(on, mailsec, nss, folder):
    assert on("p12", "export", "alice", "-o", "alice.p12", "--p12-password-file", "other")[0] == 0
    assert "Alice" in nss.pk12util("-l", str(folder / "alice.p12"), "-w", str(folder / "other"))
    nss.pk12util("-o", str(folder / "again.p12"), "-n", "alice", "-w", str(folder / "other"))
    other = NssDirectory(folder / "second")
    assert mailsec("p12", "import", "again.p12", "--p12-password-file", "other", "-d", "nss:second", "--passphrase-file", "nsspw")[0] == 0
    assert other.trust()["alice"] == "u,u,u"


def test_lists_are_crlutils_too_and_revoke(on, nss, folder):
    now = datetime.now(UTC)
    (folder / "script").write_text(f"update={now:%Y%m%d%H%M%S}Z\naddcert 100 {now:%Y%m%d%H%M%S}Z\n")
    assert on("cert", "export", "alice", "-o", "alice.pem")[0] == 0
    assert on("cert", "verify", "alice.pem", "--purpose", "email-sign", "--email", "alice@example.org")[0] == 0
    nss.run("crlutil", "-G", "-n", "Mail CA", "-c", str(folder / "script"), "-Z", "SHA256")
    (listed,) = answer(on("crl", "list", "--json"))["lists"]
    assert "Mail CA" in listed["issuer"]
    assert on("cert", "verify", "alice.pem", "--purpose", "email-sign")[0] == 1
    assert on("crl", "delete", str(listed["number"]))[0] == 0
    assert "Mail CA" not in nss.run("crlutil", "-L")
    assert on("crl", "delete", str(listed["number"]))[0] == 1


def test_whoever_a_list_there_calls_revoked_is_not_encrypted_for(on, nss, folder):
    assert answer(on("cert", "find", "alice@example.org", "--json"))["found"]
    now = datetime.now(UTC)
    (folder / "script").write_text(f"update={now:%Y%m%d%H%M%S}Z\naddcert 100 {now:%Y%m%d%H%M%S}Z\n")
    nss.run("crlutil", "-G", "-n", "Mail CA", "-c", str(folder / "script"), "-Z", "SHA256")
    code, out, _ = on("cert", "find", "alice@example.org", "--json")
    told = json.loads(out)
    assert (code, told["found"], told["certificates"]) == (1, False, []) and told["others"][0]["reason"]["code"] == "recipient-revoked"
    code, out, _ = on("cert", "find", "alice@example.org", "--explain")
    assert code == 1 and "revoked" in out.partition("BECAUSE")[2]


def test_a_list_that_we_import_is_listed_by_crlutil(on, nss, folder):
    at = datetime.now(UTC) - timedelta(days=1)
    authority = Authority("Outside", at=at)
    (folder / "ca.pem").write_bytes(pem(authority.certificate, "CERTIFICATE"))
    newer = issue_crl(authority.issuer, (), number=2, at=at + timedelta(hours=2))
    older = issue_crl(authority.issuer, (), number=1, at=at)
    (folder / "newer.crl").write_bytes(newer)
    (folder / "older.crl").write_bytes(older)
    assert on("cert", "import", "ca.pem", "--nickname", "Outside")[0] == 0
    assert on("crl", "import", "newer.crl")[0] == 0
    assert "Outside" in nss.run("crlutil", "-L")
    # Attack: the list of yesterday, from before the theft.
    code, _, err = on("crl", "import", "older.crl")
    assert code == 3 and "newer list" in err
    assert len(answer(on("crl", "list", "--json"))["lists"]) == 1


def test_merging_copies_certificates_trust_keys_and_lists(mailsec, nss, database, folder):
    now = datetime.now(UTC)
    (folder / "script").write_text(f"update={now:%Y%m%d%H%M%S}Z\naddcert 500 {now:%Y%m%d%H%M%S}Z\n")
    nss.run("crlutil", "-G", "-n", "Mail CA", "-c", str(folder / "script"), "-Z", "SHA256")
    nss.run("certutil", "-G", "-k", "ec", "-q", "nistp256", "-z", str(nss.noise))
    arguments = ("db", "merge", "nss:nss", "--source-passphrase-file", "nsspw", "-d", database)
    # NSS does not say for which domains its anchor is.
    code, _, err = mailsec(*arguments)
    assert code == 1 and "domains" in err
    merged = answer(mailsec(*arguments, "--for", "example.org", "--json"))
    assert (merged["certificates"], merged["known"], merged["left_out"]) == (1, 1, [])
    entries = {row["nickname"]: row for row in answer(mailsec("cert", "list", "-d", database, "--json"))["certificates"]}
    assert entries["Mail CA"]["trust"] == "CTu,Cu,Cu" and entries["Mail CA"]["domains"] == ["example.org"]
    assert entries["alice"]["has_key"] and entries["alice"]["verified"]
    assert len(answer(mailsec("key", "list", "-d", database, "--json"))["keys"]) == 3
    assert len(answer(mailsec("crl", "list", "-d", database, "--json"))["lists"]) == 1
    again = answer(mailsec(*arguments, "--for", "example.org", "--json"))
    assert (again["certificates"], again["keys"], again["lists"]) == (0, 0, 0)


def test_modules_that_modutil_adds_are_listed_and_its_tokens_are_ours(mailsec, nss, folder):
    assert answer(mailsec("module", "list", "-d", "nss:nss", "--json"))["modules"][0]["name"] == "NSS Internal PKCS #11 Module"
    roots = str(next(Path("/usr/lib").glob("**/libnssckbi.so")))
    nss.modutil("-add", "The Roots", "-libfile", roots)
    (row,) = [one for one in answer(mailsec("module", "list", "-d", "nss:nss", "--json"))["modules"] if one["name"] == "The Roots"]
    assert (row["library"], row["there"]) == (roots, True)
    (token,) = answer(mailsec("token", "list", "-d", "nss:nss", "--json"))["tokens"]
    assert (token["token"], token["certificates"], token["logged_in"]) == ("NSS Certificate DB", 2, False)


def test_a_database_that_we_make_is_nsss(mailsec, nss, folder):
    assert mailsec("db", "init", "-d", "nss:made", "--passphrase-file", "nsspw")[0] == 0
    code, _, err = mailsec("db", "init", "-d", "nss:made", "--passphrase-file", "nsspw")
    assert code == 1 and "already" in err
    made = NssDirectory.__new__(NssDirectory)
    made.path, made.password_file = folder / "made", folder / "nsspw"
    assert "NSS Internal PKCS #11 Module" in made.modutil("-list") and made.trust() == {}
    assert mailsec("key", "generate", "--key", "ec-p256", "-d", "nss:made", "--passphrase-file", "nsspw")[0] == 0
    assert "orphan" in made.run("certutil", "-K")


def test_passwords_change_by_either_hand(on, mailsec, nss, folder):
    assert on("db", "password", "--new-passphrase-file", "other")[0] == 0
    code, _, err = on("cert", "list")
    assert code == 1 and "password is wrong" in err and "Traceback" not in err
    assert mailsec("cert", "list", "-d", "nss:nss", "--passphrase-file", "other")[0] == 0
    (folder / "third").write_text("third one\n")
    nss.modutil("-changepw", "NSS Certificate DB", "-pwfile", str(folder / "other"), "-newpwfile", str(folder / "third"))
    assert mailsec("db", "check", "-d", "nss:nss", "--passphrase-file", "third")[0] == 0


def test_token_pin_changes_the_password_between_two_changes_of_modutil(mailsec, nss, folder):
    token = ("NSS Certificate DB", "-d", "nss:nss")
    (folder / "third").write_text("third one\n")
    nss.modutil("-changepw", token[0], "-pwfile", str(folder / "nsspw"), "-newpwfile", str(folder / "third"))
    code, out, err = mailsec("token", "pin", *token, "--pin-file", "third", "--new-pin-file", "other")
    assert code == 0 and "was changed" in out, err
    nss.modutil("-changepw", token[0], "-pwfile", str(folder / "other"), "-newpwfile", str(folder / "nsspw"))
    assert not answer(mailsec("token", "list", *token[1:], "--json"))["tokens"][0]["marked"]
    assert mailsec("token", "selftest", *token, "--pin-file", "nsspw")[0] == 0
    code, _, err = mailsec("token", "pin", *token, "--pin-file", "third", "--new-pin-file", "other")
    assert code == 1 and "CKR_PIN_INCORRECT" in err and "token login" in err
    assert answer(mailsec("token", "list", *token[1:], "--json"))["tokens"][0]["marked"]
    assert mailsec("token", "login", *token, "--pin-file", "nsspw")[0] == 0


@pytest.mark.parametrize("line", ["internal:one two", "NSS Certificate DB:one two\nother:x", "internal:wrong\nNSS Certificate DB:one two"])
def test_password_files_of_certutil_and_mod_nss_are_read(mailsec, nss, folder, line):
    (folder / "named").write_text(line + "\n")
    assert mailsec("cert", "list", "-d", "nss:nss", "--passphrase-file", "named")[0] == 0


def test_without_a_password_all_is_listed_and_nothing_is_believed(mailsec, nss):
    code, out, err = mailsec("cert", "list", "-d", "nss:sql:nss")
    assert code == 0 and out.count("NOT VERIFIED") == 2 and "--passphrase-file" in err


def test_a_directory_that_others_may_write_to_is_warned_about(on, nss):
    assert on("cert", "list")[2] == ""
    (nss.path / "cert9.db").chmod(0o666)
    assert "may be written to by others" in on("cert", "list")[2]


def test_looking_changes_no_octet(on, nss):
    before = {path.name: path.read_bytes() for path in nss.path.iterdir()}
    for command in (("cert", "list"), ("cert", "show", "alice"), ("key", "list"), ("crl", "list")):
        assert on(*command)[0] == 0
    assert {path.name: path.read_bytes() for path in nss.path.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("cert", "list", "-d", "nss:"), 2, "cert9.db"),
        (("cert", "list", "-d", "nss:dbm:old"), 2, "names no NSS database"),
        (("cert", "list", "-d", "nss:absent"), 1, "certutil -N"),
        (("cert", "list", "-d", "nss:."), 78, "no NSS database"),
        (("cert", "list", "-d", "nss:old"), 78, "certutil --upgrade-merge"),
        (("cert", "list", "-d", "nss:torn", "--passphrase-file", "nsspw"), 78, "is damaged"),
        (("cert", "list", "-d", "nss:a'b"), 78, "quotes"),
        (("cert", "show", "alcie", "-d", "nss:nss"), 1, 'did you mean "alice"'),
        (("user", "list", "-d", "nss:nss"), 2, "not kept in NSS databases"),
        (("partner", "list", "-d", "nss:nss"), 2, "not kept in NSS databases"),
        (("key", "assign", "alice", "@example.org", "-d", "nss:nss"), 2, "not kept in NSS databases"),
        (("cert", "learnt", "-d", "nss:nss"), 2, "not kept in NSS databases"),
        (("cert", "import", "--anchors", "none", "-d", "nss:nss"), 2, "not kept in NSS databases"),
        (("db", "backup", "nss", "-d", "nss:nss"), 1, "holds an NSS database already"),
        (("db", "backup", "x", "-d", "nss:torn"), 78, "damaged"),
        (("db", "restore", "old", "-d", "nss:nss"), 78, "certutil --upgrade-merge"),
        (("db", "restore", "absent", "-d", "nss:nss"), 1, "no directory"),
        (("db", "upgrade", "-d", "nss:old"), 78, "certutil --upgrade-merge"),
        (("db", "check", "--accept", "-d", "nss:nss", "--passphrase-file", "nsspw"), 2, "cert trust"),
        (("db", "merge", "nss:nss", "-d", "nss:nss", "--source-passphrase-file", "nsspw"), 2, "certutil --merge"),
        (("module", "add", "x", "/usr/lib/x.so", "-d", "nss:nss", "--no-check"), 2, "modutil"),
        (("module", "remove", "x", "-d", "nss:nss"), 2, "modutil"),
        (("token", "list", "-d", "x.db"), 2, "--nss DIR"),
    ],
)
def test_what_does_not_go_is_one_sentence_with_a_hint(mailsec, nss, folder, arguments, code, words):
    (folder / "old").mkdir()
    (folder / "old" / "cert8.db").touch()
    (folder / "torn").mkdir()
    for name in ("cert9.db", "key4.db"):
        (folder / "torn" / name).write_bytes(b"SQLite format 3\0 and nothing more")
    (folder / "a'b").mkdir()
    for name in ("cert9.db", "key4.db"):
        (folder / "a'b" / name).touch()
    before = nss.trust()
    got, _, err = mailsec(*arguments)
    assert (got, words in err) == (code, True), err
    assert "hint:" in err
    assert nss.trust() == before


def test_an_old_database_is_brought_into_a_new_one_by_the_command_that_the_hint_gives(mailsec, nss, folder):
    (folder / "old").mkdir()
    certutil = ("certutil", "-d", "dbm:old", "-f", "other")
    if subprocess.run([*certutil, "-N"], capture_output=True, timeout=60, check=False).returncode:
        pytest.skip("this NSS reads no cert8.db")
    made = ("-S", "-x", "-n", "legacy", "-s", "CN=legacy", "-t", "C,C,", "-k", "rsa", "-g", "2048", "-z", str(nss.noise), "-m", "7")
    subprocess.run([*certutil, *made], capture_output=True, timeout=60, check=True)
    code, _, err = mailsec("cert", "list", "-d", "nss:old")
    assert code == 78
    assert mailsec("db", "init", "-d", "nss:new", "--passphrase-file", "nsspw")[0] == 0
    command = err[err.index("certutil --upgrade") :].split()
    words = {"sql:NEW": "sql:new", "NEW-PASSWORD-FILE": "nsspw", "OLD-PASSWORD-FILE": "other"}
    subprocess.run([words.get(word, word) for word in command], capture_output=True, timeout=60, check=True)
    (row,) = answer(mailsec("cert", "list", "-d", "nss:new", "--passphrase-file", "nsspw", "--json"))["certificates"]
    assert (row["nickname"], row["has_key"], row["verified"]) == ("legacy", True, True)


def test_a_certificate_from_a_file_with_its_key_is_there_whole(on, nss, folder):
    key, authority = make_key("rsa-2048"), Authority("Outside")
    (folder / "dave.pem").write_bytes(pem(authority.certify(public_key_of(key), "dave@example.org"), "CERTIFICATE"))
    (folder / "dave.key").write_bytes(pem(key, "PRIVATE KEY"))
    assert on("cert", "import", "dave.pem", "--key", "dave.key", "--trust", ",P,")[0] == 0
    assert nss.trust()["dave@example.org"] == "u,Pu,u"
    code, _, err = on("cert", "import", "dave.pem", "--key", "dave.key", "--assign", "@example.org")
    assert code == 2 and "keeps no assignments" in err
