"""The SMTP server core: every dialog whole, line by line, octet by octet, with trailing data; and any octets in any pieces."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailsec.model.limits import Limits
from mailsec.wire.smtp import questions
from mailsec.wire.smtp.offers import ServerSettings

from .play import DIALOGS, Driver, line_by_line, matches, octet_by_octet, play, read_dialog, whole

PATHS = sorted(DIALOGS.glob("*.dialog"))


@pytest.mark.parametrize("cut", [whole, line_by_line, octet_by_octet], ids=lambda f: f.__name__)
@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_dialog(path, cut):
    dialog = read_dialog(path)
    driver = play(dialog, cut)
    assert matches(dialog.expected, driver.said), driver.said.decode()
    assert driver.messages == dialog.messages
    assert driver.closed is dialog.closes


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_dialog_with_trailing_data(path):
    dialog = read_dialog(path)
    driver = play(dialog, whole, trailing=b"\0\xff\r trailing")
    assert matches(dialog.expected, driver.said), driver.said.decode()
    driver = play(dialog, whole, trailing=b"NOOP\r\n")
    lines = driver.said.decode().split("\r\n")[:-1]
    assert matches(dialog.expected, "".join(line + "\r\n" for line in lines[: len(dialog.expected)]).encode())


OPENING = b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n"


def test_every_smuggling_sequence_ends_nothing(vectors):
    """SMTP smuggling (2023): what some server takes for the end of data, and what behind it is a second message."""
    import json

    sequences = json.loads((vectors / "smtp-smuggling" / "unique_sequences.json").read_text())
    assert len(sequences) >= 7
    for text in sequences:
        sequence = text.encode("latin-1")
        smuggled = b"MAIL FROM:<admin@example.org>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nFrom: admin@example.org\r\n\r\nevil"
        octets = OPENING + b"Subject: x\r\n\r\nbody" + sequence + smuggled + b"\r\n.\r\nQUIT\r\n"
        for cut in (whole, octet_by_octet):
            driver = Driver()
            for piece in cut(octets):
                driver.feed(piece)
            assert driver.messages == [], sequence
            assert sum(isinstance(q, questions.MailFrom) for q in driver.asked) == 1
            assert driver.said.decode().splitlines()[-2].startswith("554 5.6.0"), sequence
            # Normalised, the smuggled commands are text of the one message, and no line of it is a dot.
            driver = Driver(ServerSettings("gw.example.org", normalise=True))
            for piece in cut(octets):
                driver.feed(piece)
            assert sum(isinstance(q, questions.MailFrom) for q in driver.asked) == 1
            for message in driver.messages:
                assert not re.search(rb"(?<!\r)\n|\r(?!\n)|\0", message)
                assert b"smuggled" not in message and b"evil" in message


def test_every_smuggling_sequence_in_chunks_is_held_to_the_rules_of_data(vectors):
    """BDAT smuggling: what no server takes for an end in a chunk, a next hop that is given it by DATA would."""
    import json

    for text in json.loads((vectors / "smtp-smuggling" / "unique_sequences.json").read_text()):
        body = b"Subject: x\r\n\r\nbody" + text.encode("latin-1") + b"MAIL FROM:<admin@example.org>\r\n"
        for middle in range(len(body) + 1):
            chunks = b"BDAT %d\r\n%bBDAT %d LAST\r\n%b" % (middle, body[:middle], len(body) - middle, body[middle:])
            for normalise in (False, True):
                driver = Driver(ServerSettings("gw.example.org", chunking=True, normalise=normalise))
                driver.feed(OPENING.removesuffix(b"DATA\r\n") + chunks + b"NOOP\r\n")
                assert sum(isinstance(q, questions.MailFrom) for q in driver.asked) == 1
                assert driver.said.endswith(b"250 2.0.0 ok\r\n"), "the session is in step"
                assert normalise or driver.messages == []
                for message in driver.messages:
                    assert not re.search(rb"(?<!\r)\n|\r(?!\n)|\0", message)


@settings(max_examples=60)
@given(message=st.binary(max_size=40), cuts=st.lists(st.integers(0, 40), max_size=4), pieces=st.integers(1, 7))
def test_any_message_in_any_chunks_is_taken_whole_or_not_at_all(message, cuts, pieces):
    places = sorted({min(cut, len(message)) for cut in cuts} | {0, len(message)})
    octets = b"".join(b"BDAT %d\r\n%b" % (b - a, message[a:b]) for a, b in itertools.pairwise(places)) + b"BDAT 0 LAST\r\n"
    driver = Driver(ServerSettings("gw.example.org", chunking=True))
    octets = OPENING.removesuffix(b"DATA\r\n") + octets + b"RSET\r\n"
    for start in range(0, len(octets), pieces):
        driver.feed(octets[start : start + pieces])
    clean = not re.search(rb"(?<!\r)\n|\r(?!\n)|\0", message)
    assert driver.messages == ([message + (b"" if not message or message.endswith(b"\r\n") else b"\r\n")] if clean else [])
    assert driver.said.endswith(b"250 2.0.0 ok\r\n")


def test_chunk_of_10_gb_is_not_waited_for():
    driver = Driver(ServerSettings("gw.example.org", chunking=True))
    driver.feed(OPENING.removesuffix(b"DATA\r\n") + b"BDAT 10000000000 LAST\r\n")
    assert driver.closed and b"552 5.3.4" in driver.said


def test_starttls_with_commands_behind_it_is_refused():
    driver = Driver(ServerSettings("gw.example.org", tls="starttls"))
    driver.feed(b"EHLO x\r\nSTARTTLS\r\nMAIL FROM:<evil@x.example>\r\n")
    assert driver.said.splitlines()[-1].startswith(b"554 5.5.0")
    assert driver.closed
    assert b"220 2.0.0" not in driver.said


def test_octets_between_the_220_and_the_handshake_close_the_connection():
    driver = Driver(ServerSettings("gw.example.org", tls="starttls"))
    driver.feed(b"EHLO x\r\nSTARTTLS\r\n")
    said = driver.said
    driver.feed(b"EHLO evil\r\n")
    assert driver.closed and driver.said == said


def test_nothing_from_before_tls_is_known_after_it():
    driver = Driver(ServerSettings("gw.example.org", tls="starttls"))
    driver.feed(b"EHLO x\r\nSTARTTLS\r\n")
    driver.handshake()
    assert driver.core.client.helo == "" and driver.core.client.protocol == "SMTP"
    driver.feed(b"MAIL FROM:<a@b.example>\r\n")
    assert driver.said.endswith(b"503 5.5.1 bad sequence of commands\r\n")


def test_10000_recipients_take_no_memory():
    driver = Driver()
    driver.feed(b"EHLO x\r\nMAIL FROM:<a@b.example>\r\n")
    for n in range(10_000):
        driver.feed(b"RCPT TO:<r%d@example.org>\r\n" % n)
    assert sum(isinstance(q, questions.RcptTo) for q in driver.asked) == 1000
    # RFC 5321 §4.5.3.1.10: each of the rest is told, and the session goes on with those that were taken.
    assert driver.said.count(b"452 4.5.3") == 9000 and not driver.closed


def test_message_that_never_ends_is_cut_off():
    driver = Driver(ServerSettings("gw.example.org", limits=Limits(message_size=1000)))
    driver.feed(OPENING)
    for _ in range(200):
        driver.feed(b"x" * 60_000)
    assert driver.closed
    assert len(driver.body) <= 60_000
    assert driver.said.endswith(b"552 5.3.4 message is larger than is accepted here\r\n")


def test_silence_is_answered_with_421():
    for octets in (b"", b"EHLO x\r\nMAIL FR", OPENING + b"half a mess"):
        driver = Driver()
        driver.feed(octets)
        assert driver.deadline is not None
        driver.wait()
        assert driver.said.endswith(b"421 4.4.2 timeout\r\n") and driver.closed


def test_secret_is_in_no_repr():
    driver = Driver(ServerSettings("gw.example.org", tls="implicit", authenticate=True))
    driver.handshake()
    driver.feed(b"EHLO x\r\nAUTH PLAIN AGEAc2VjcmV0\r\n")
    (question,) = [q for q in driver.asked if isinstance(q, questions.Authenticate)]
    assert question.credentials.secret == b"secret"
    assert "secret" not in repr(question).replace("secret=", "")


def test_helo_name_holds_nothing_that_could_leave_a_comment_of_a_received_field():
    driver = Driver()
    driver.feed(b'EHLO a)b(c"\\<x>;\xe4\r\n')
    assert driver.core.client.helo == "a?b?c???x???"


words = st.sampled_from(
    [b"EHLO x\r\n", b"HELO x\r\n", b"MAIL FROM:<a@b.example>\r\n", b"RCPT TO:<c@d.example>\r\n", b"DATA\r\n", b".\r\n", b"\r\n", b"..\r\n",
     b"RSET\r\n", b"NOOP\r\n", b"QUIT\r\n", b"AUTH PLAIN\r\n", b"text\r\n", b".text\r\n",
     b"\r", b"\n", b"\0", b".", b"x", b"\n.\n", b"\r.\r", b"\r\n.\r",
     OPENING, b"\r\n.\r\n"]
)  # fmt: skip
streams = st.lists(st.one_of(words, st.binary(max_size=8)), max_size=40).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(streams, st.lists(st.integers(1, 20), min_size=1), st.booleans())
@example(OPENING + b"a\r\n.\r\nNOOP\r\n", [1], False)
def test_any_octets_in_any_pieces_give_the_same_dialog(octets, sizes, normalise):
    limits = Limits(message_size=100, bad_commands=50, command_line=80)

    def run(pieces):
        driver = Driver(ServerSettings("gw.example.org", normalise=normalise, limits=limits))
        for piece in pieces:
            driver.feed(piece)
        return driver.said, driver.messages, driver.closed, [type(q) for q in driver.asked]

    def cut():
        at = n = 0
        while at < len(octets):
            yield octets[at : at + sizes[n % len(sizes)]]
            at += sizes[n % len(sizes)]
            n += 1

    expected = run(whole(octets))
    assert run(octet_by_octet(octets)) == expected
    assert run(cut()) == expected


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([b".", b"\r\n", b"x", b"..", b"\r\n.", b"line"]), max_size=30).map(b"".join))
def test_what_a_client_stuffs_a_server_unstuffs(message):
    from mailsec.wire.smtp.data import stuffed, stuffed_whole

    wire = stuffed_whole(message)
    assert b"".join(stuffed(octet_by_octet(message))) == wire
    driver = Driver()
    driver.feed(OPENING + wire)
    whole_lines = message if not message or message.endswith(b"\r\n") else message + b"\r\n"
    assert driver.messages == [whole_lines]
