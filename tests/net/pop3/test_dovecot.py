"""Reading through the gateway from Dovecot: poplib, sockets, and what happens to mail that is deleted, large, encrypted or sealed."""

from __future__ import annotations

import poplib
import re
import socket
from pathlib import Path

import pytest

from tests.net.pop3.letters import encrypted_for, signed_by
from tests.peers.gateway import until

PLAIN = b"From: carol@partner.example\r\nTo: alice@example.org\r\nSubject: hello\r\n\r\n.dot\r\n..\r\nhello\r\n"


def verdict_of(message: bytes) -> str:
    found = re.findall(rb"^Authentication-Results: gw.example.org; smime=(\w+)", message, re.MULTILINE)
    assert len(found) == 1, message[:500]
    return found[0].decode()


def test_message_is_read_with_its_verdict(empty):
    empty.dovecot.put("alice", PLAIN)
    for listener in ("pop3s", "pop3"):
        message = empty.retrieved(listener=listener)
        assert message.endswith(PLAIN) and verdict_of(message) == "none"


def test_signed_mail_is_trusted_and_changed_mail_is_not(empty):
    message = signed_by(empty.gateway.carol)
    empty.dovecot.put("alice", message)
    empty.dovecot.put("alice", message.replace(b"Good day", b"Good dye"))
    empty.dovecot.put("alice", signed_by(empty.gateway.stranger))
    assert [verdict_of(empty.retrieved(number)) for number in (1, 2, 3)] == ["pass", "fail", "policy"]
    # Octet for octet behind our field (promise 3).
    assert empty.retrieved(1).partition(b"\r\n")[2].endswith(message.partition(b"\r\n")[2])


def test_only_the_owner_reads_what_is_encrypted(empty):
    message = encrypted_for(empty.gateway, "alice@example.org")
    for user in ("alice", "bob"):
        empty.dovecot.put(user, message)
    assert b"the secret" in empty.retrieved() and b"the secret" in empty.retrieved(login="alice@example.org")
    assert b"the secret" not in empty.retrieved(login="bob")
    # The same mailbox by a listener whose upstream lists no domains: nobody is its owner.
    notice = empty.retrieved(listener="pop3")
    assert b"the secret" not in notice and b"message/rfc822" in notice and message in notice


def test_lists_are_the_upstreams(empty):
    for number in range(3):
        empty.dovecot.put("alice", PLAIN + b"x" * number + b"\r\n")
    client = empty.reader()
    sizes = [len(PLAIN) + 2 + number for number in range(3)]
    assert client.stat() == (3, sum(sizes))
    assert client.list()[1] == [b"%d %d" % (number, size) for number, size in enumerate(sizes, 1)]
    assert client.list(2) == b"+OK 2 %d" % sizes[1]
    assert len({line.split()[1] for line in client.uidl()[1]}) == 3
    assert client.uidl(3).startswith(b"+OK 3 ")
    with pytest.raises(poplib.error_proto):
        client.retr(4)
    client.noop()
    assert client.quit().startswith(b"+OK")


def test_top_has_the_verdict_and_no_cipher_text(empty):
    empty.dovecot.put("alice", signed_by(empty.gateway.carol))
    empty.dovecot.put("alice", encrypted_for(empty.gateway, "bob@example.org"))
    client = empty.reader()
    _, lines, _ = client.top(1, 0)
    assert lines[0].startswith(b"Authentication-Results: gw.example.org; smime=pass") and lines[-1] == b""
    _, lines, _ = client.top(2, 20)
    assert lines[0].startswith(b"Authentication-Results: gw.example.org; smime=") and lines[-1] == b""
    client.quit()


def test_deletes_happen_with_quit(empty):
    for number in range(4):
        empty.dovecot.put("alice", PLAIN + b"%d\r\n" % number)
    client = empty.reader()
    client.dele(1)
    client.dele(3)
    assert client.stat()[0] == 2
    assert [line.split()[0] for line in client.list()[1]] == [b"2", b"4"]
    assert [line.split()[0] for line in client.uidl()[1]] == [b"2", b"4"]
    for command in (lambda: client.retr(1), lambda: client.dele(3), lambda: client.list(1), lambda: client.dele(9)):
        with pytest.raises(poplib.error_proto):
            command()
    assert len(empty.dovecot.messages("alice")) == 4
    assert client.quit().startswith(b"+OK")
    until(lambda: len(empty.dovecot.messages("alice")) == 2, 20, "two messages are left")
    assert {path.read_bytes()[-2:] for path in empty.dovecot.messages("alice")} == {b"1\n", b"3\n"}


def test_rset_takes_deletes_back(empty):
    empty.dovecot.put("alice", PLAIN)
    client = empty.reader()
    client.dele(1)
    client.rset()
    assert client.stat()[0] == 1
    client.quit()
    assert len(empty.dovecot.messages("alice")) == 1


def test_a_broken_connection_deletes_nothing(empty):
    empty.dovecot.put("alice", PLAIN)
    client = empty.reader()
    client.dele(1)
    client.sock.shutdown(socket.SHUT_RDWR)
    client.close()
    # The next session sees it: Dovecot lets in one reader at a time, so the broken one has ended.
    again = empty.reader()
    assert again.stat()[0] == 1
    again.quit()


def test_quit_and_gone_at_once_deletes_all_the_same(empty):
    """RFC 1939 §6: the client has said QUIT. Many do not wait for the answer."""
    for number in range(150):
        empty.dovecot.put("alice", PLAIN + b"%d\r\n" % number)
    client = empty.reader()
    client.sock.sendall(b"".join(b"DELE %d\r\n" % number for number in range(1, 151)) + b"QUIT\r\n")
    for _ in range(150):
        assert client.file.readline().startswith(b"+OK")
    client.sock.close()
    until(lambda: not empty.dovecot.messages("alice"), 20, "an empty mailbox")


def test_wrong_password_is_the_servers_answer(empty):
    client = poplib.POP3_SSL("localhost", empty.gateway.ports["pop3s"], context=empty.trusting, timeout=30)
    client.user("alice")
    with pytest.raises(poplib.error_proto, match=r"\[AUTH\]"):
        client.pass_("wrong")
    client.user("alice")
    client.pass_("secret")
    assert client.capa().keys() >= {"TOP", "UIDL", "PIPELINING", "RESP-CODES", "AUTH-RESP-CODE"}
    client.quit()


def test_no_password_is_taken_in_clear(empty):
    client = poplib.POP3("localhost", empty.gateway.ports["pop3"], timeout=30)
    assert "STLS" in client.capa() and "USER" not in client.capa() and "SASL" not in client.capa()
    for command in ("USER alice", "PASS secret", "AUTH PLAIN AGFsaWNlAHNlY3JldA=="):
        with pytest.raises(poplib.error_proto, match="STLS"):
            client._shortcmd(command)
    client.quit()


@pytest.mark.parametrize("behind", [b"CAPA\r\n", b"USER alice\r\nPASS secret\r\n", b"\x16\x03"])
def test_octets_behind_stls_are_refused_and_the_connection_closed(empty, behind):
    with socket.create_connection(("127.0.0.1", empty.gateway.ports["pop3"]), timeout=20) as connection:
        file = connection.makefile("rb")
        assert file.readline().startswith(b"+OK")
        connection.sendall(b"STLS\r\n" + behind)
        assert file.readline() == b"-ERR octets behind STLS\r\n"
        assert file.read() == b""


def test_servers_that_user_names_name(empty):
    empty.dovecot.put("alice", PLAIN)
    port = empty.dovecot.tls_port
    assert empty.retrieved(listener="named", login=f"alice#127.0.0.1:{port}").endswith(PLAIN)
    # A name that leads to our own machine is none that a stranger may name, whatever "*" says.
    for login in (f"alice#localhost:{port}", f"alice#127.0.0.1:{empty.dovecot.port}", "alice#127.0.0.1:22", "alice"):
        with pytest.raises(poplib.error_proto):
            empty.reader(listener="named", login=login)


def test_large_message_comes_whole(empty):
    body = b"".join(b".%06d" % number + b"x" * 60 + b"\r\n" for number in range(60_000))
    empty.dovecot.put("alice", PLAIN + body)
    client = empty.reader()
    client.sock.sendall(b"RETR 1\r\nNOOP\r\n")
    file = client.file
    assert file.readline().startswith(b"+OK")
    received = bytearray()
    while (line := file.readline()) != b".\r\n":
        received += line[1:] if line.startswith(b".") else line
    assert received.endswith(PLAIN + body)
    assert file.readline().startswith(b"+OK")
    client.quit()


def test_promise_9_100_mib_read_by_pop3_cost_at_most_64_mib(empty):
    """In a worker: file pages that it maps included. (promises/test_promise_9… holds the other ways.)"""

    def read(size: int) -> None:
        empty.dovecot.put("alice", PLAIN + (b"0123456789abcdef" * 4 + b"01234567\r\n") * (size // 74))
        client = empty.reader()
        client.sock.sendall(b"RETR 1\r\n")
        file, octets = client.file, 0
        assert file.readline().startswith(b"+OK")
        while (line := file.readline()) != b".\r\n":
            octets += len(line)
        assert octets > size
        client.sock.sendall(b"DELE 1\r\n")
        assert file.readline().startswith(b"+OK")
        client.quit()

    def most() -> int:
        pids = empty.gateway.pids()
        return max(int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) for pid in pids)

    for _ in range(4):
        # warm, whichever worker takes it: what one message of any size needs is not counted
        read(1 << 20)
    idle = most()
    read(100 << 20)
    assert most() - idle < 64 * 1024, f"{(most() - idle) // 1024} MiB"


def test_behind_delivery_by_the_same_gateway_the_verdict_is_the_same(empty):
    """Signed mail arrives by SMTP, goes to Dovecot by LMTP, and is read by POP3: sealed, and not judged again."""
    message = signed_by(empty.gateway.carol)
    with empty.gateway.client() as client:
        client.sendmail("carol@partner.example", ["alice@example.org"], message)
    until(lambda: empty.dovecot.messages("alice"), 30, "delivery")
    shown = empty.retrieved()
    assert verdict_of(shown) == "pass" and shown.count(b"X-Mailsec-Seal: ") == 1 and b"\r\nReturn-Path: " in b"\r\n" + shown
    stored = empty.dovecot.messages("alice")[0].read_bytes().replace(b"\n", b"\r\n")
    assert shown == stored
    # Altered in the mailbox: the seal goes, and the verdict is what the octets deserve.
    empty.dovecot.empty("alice")
    empty.dovecot.put("alice", stored.replace(b"Good day", b"Good dye"))
    shown = empty.retrieved()
    assert verdict_of(shown) == "fail" and b"X-Mailsec-Seal" not in shown


def test_what_was_decrypted_on_arrival_keeps_its_verdict_in_the_mailbox(empty):
    """The signature inside the encrypted layer was checked when it arrived, and is not there any more."""
    message = encrypted_for(empty.gateway, "alice@example.org", signer=empty.gateway.carol)
    with empty.gateway.client() as client:
        client.sendmail("carol@partner.example", ["alice@example.org"], message)
    until(lambda: empty.dovecot.messages("alice"), 30, "delivery")
    shown = empty.retrieved()
    assert b"the secret" in shown and verdict_of(shown) == "pass" and b"X-Mailsec-Seal" in shown
