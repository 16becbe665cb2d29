"""The POP3 server core: every dialog whole, line by line, octet by octet, with trailing data; and attacks by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.errors import Reply
from mailsec.model.limits import Limits
from mailsec.model.octets import Segments
from mailsec.model.requests import Ask, Close, Send, Stream
from mailsec.wire.pop3 import questions
from mailsec.wire.pop3.questions import Response
from mailsec.wire.pop3.server import PopSettings

from .play import line_by_line, matches, octet_by_octet, whole
from .pop3_play import DIALOGS, Driver, logged_in, play, read_dialog

PATHS = sorted(DIALOGS.glob("*.dialog"))


@pytest.mark.parametrize("cut", [whole, line_by_line, octet_by_octet], ids=lambda f: f.__name__)
@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_dialog(path, cut):
    dialog = read_dialog(path)
    driver = play(dialog, cut)
    assert matches(dialog.expected, driver.said), driver.said.decode()
    assert driver.closed is dialog.closes


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_dialog_with_trailing_data(path):
    dialog = read_dialog(path)
    driver = play(dialog, whole, trailing=b"\0\xff\r trailing")
    lines = driver.said.decode().split("\r\n")[:-1]
    assert matches(dialog.expected, "".join(line + "\r\n" for line in lines[: len(dialog.expected)]).encode())


def test_stls_with_commands_behind_it_is_refused_and_closed():
    driver = Driver().feed(b"STLS\r\nUSER alice\r\nPASS secret\r\n")
    assert driver.said.endswith(b"-ERR octets behind STLS\r\n") and driver.closed
    assert driver.handshakes == 0 and len(driver.asked) == 1


def test_octets_between_the_ok_and_the_handshake_close_the_connection():
    driver = Driver().feed(b"STLS\r\n")
    said = driver.said
    driver.feed(b"USER alice\r\n")
    assert driver.closed and driver.said == said


def test_client_whose_session_is_refused_is_told_under_tls_and_gets_nothing_else():
    for driver in (Driver().feed(b"STLS\r\n"), Driver(PopSettings("gw.example.org", tls="implicit"))):
        before = len(driver.said)
        (said, close) = driver.core.tls_refused(Reply(554, "5.7.1", "client certificate not accepted: \r\n+OK"))
        assert said == Send(b"-ERR [SYS/PERM] client certificate not accepted: ??+OK\r\n") and close == Close()
        assert driver.core.receive_data(b"USER alice\r\n") == [] and len(driver.said) == before


def test_half_a_command_before_tls_is_no_beginning_of_one_behind_it():
    driver = Driver().feed(b"ST")
    driver.feed(b"LS\r\n")
    driver.handshake().feed(b"CAPA\r\n")
    assert driver.said.count(b"STLS\r\n") == 0 and b"SASL PLAIN" in driver.said


def test_a_password_in_clear_is_not_even_looked_at():
    driver = Driver().feed(b"USER alice\r\nPASS secret\r\nAUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n")
    assert not any(isinstance(one, questions.Login) for one in driver.asked)


def test_pipelined_commands_are_answered_in_order():
    driver = logged_in()
    driver.feed(b"STAT\r\nRETR 1\r\nDELE 1\r\nSTAT\r\nQUIT\r\n")
    assert driver.said.startswith(b"+OK 2 57\r\n+OK\r\nSubject: one\r\n")
    assert driver.said.endswith(b"+OK\r\n+OK 1 27\r\n+OK goodbye\r\n")


def test_a_broken_connection_updates_nothing():
    driver = logged_in().feed(b"DELE 1\r\n")
    driver.core.connection_lost("reset")
    assert not driver.updated
    driver = logged_in().feed(b"DELE 1\r\nQUI")
    driver.core.connection_lost("reset")
    assert not driver.updated


def test_silence_closes_without_a_word_and_updates_nothing():
    """RFC 1939 §3: no response, no removal."""
    driver = logged_in().feed(b"DELE 1\r\n")
    assert driver.deadline is not None and driver.deadline >= 600
    said = driver.said
    driver.wait()
    assert driver.closed and driver.said == said and not driver.updated


def test_stopping_is_said_behind_what_is_answered_and_updates_nothing():
    driver = logged_in().feed(b"DELE 1\r\n")
    driver.drain()
    assert driver.said.endswith(b"-ERR [SYS/TEMP] shutting down, try again later\r\n") and driver.closed and not driver.updated


def test_large_message_is_sent_in_blocks_with_its_dots_doubled():
    message = b"Subject: x\r\n\r\n" + b".line\r\n.\r\n" * 200_000
    driver = logged_in(messages=[message]).feed(b"RETR 1\r\nNOOP\r\n")
    head, _, rest = driver.said.partition(b"\r\n")
    assert head == b"+OK" and rest.endswith(b"\r\n.\r\n+OK\r\n")
    assert driver.largest <= 600_000
    body = rest[: -len(b".\r\n+OK\r\n")]
    assert body == message.replace(b"\r\n.", b"\r\n..")


def test_client_that_asks_for_everything_and_takes_nothing_is_waited_for():
    """Small messages by the thousand: somebody must wait, or they pile up in memory."""
    driver = logged_in(messages=[b"Subject: x\r\n\r\n" + b"x" * 5000 + b"\r\n"])
    driver.core.receive_data(b"RETR 1\r\n" * 100)
    said = 0
    while True:
        requests = driver.core.answer(driver.answer(questions.Request("RETR", 1)))
        said += sum(len(one.data) for one in requests if isinstance(one, Send))
        if isinstance(requests[-1], Stream):
            break
        assert said < 100_000
    assert driver.core.receive_data(b"NOOP\r\n") == []
    assert isinstance(driver.core.streamed()[-1], Ask)


@pytest.mark.parametrize("evil", [b"x\n.\n+OK forged\r\n", b"x\r.\r\r\n", b"x\0\r\n", b"x\r\n.\n"])
def test_a_message_that_a_client_could_read_an_end_in_is_not_sent(evil):
    driver = logged_in(messages=[b"Subject: x\r\n\r\n" + evil]).feed(b"RETR 1\r\n")
    assert driver.said == b"-ERR [SYS/PERM] this message cannot be sent\r\n"
    large = b"Subject: x\r\n\r\n" + b"y" * 70_000 + b"\r\n" + evil
    driver = logged_in(messages=[large]).feed(b"RETR 1\r\n")
    assert driver.closed and not driver.said.endswith(b"\r\n.\r\n")


def test_a_text_from_elsewhere_cannot_begin_another_response():
    driver = logged_in(refuse=Response(True)).feed(b"STAT\r\n")
    driver.refuse = Response(False, "no\r\n+OK forged\r\n", "IN-USE")
    driver.said = b""
    driver.feed(b"STAT\r\n")
    assert driver.said == b"-ERR [IN-USE] no??+OK forged??\r\n"
    driver.refuse, driver.said = Response(False, "[AUTH] is no code"), b""
    driver.feed(b"STAT\r\n")
    assert driver.said == b"-ERR  [AUTH] is no code\r\n"


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(535, "5.7.8", "no"), b"-ERR [AUTH] no\r\n"),
        (Reply(451, "4.3.0", "later"), b"-ERR [SYS/TEMP] later\r\n"),
        (Reply(550, "5.7.1", "never"), b"-ERR [SYS/PERM] never\r\n"),
        (Reply(250, "2.0.0", "yes"), b"-ERR [SYS/TEMP] local error, try again later\r\n"),
    ],
)
def test_an_error_of_the_layer_above_is_never_a_yes(reply, said):
    driver = Driver(PopSettings("gw.example.org", tls="implicit"), refuse=reply).handshake()
    driver.said = b""
    driver.feed(b"AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\nSTAT\r\n")
    assert driver.said == said + b"-ERR not now\r\n"


def test_secret_is_in_no_repr():
    driver = logged_in()
    (login,) = [one for one in driver.asked if isinstance(one, questions.Login)]
    assert login.credentials.secret == b"secret" and "secret" not in repr(login).replace("secret=", "")


def test_errors_end_a_session():
    driver = Driver(PopSettings("gw.example.org", limits=Limits(bad_commands=3)))
    driver.feed(b"A\r\nB\r\nC\r\nD\r\n")
    assert driver.closed and driver.said.count(b"-ERR") == 3


pieces = st.sampled_from(
    [b"USER alice\r\n", b"PASS secret\r\n", b"STLS\r\n", b"RETR 1\r\n", b"QUIT\r\n", b"AUTH PLAIN\r\n", b"*\r\n", b"\n", b"\0", b"CAPA\r\n"]
)


@given(st.lists(pieces | st.binary(max_size=20), max_size=20), st.sampled_from(["implicit", "starttls-required"]))
def test_any_octets_end_in_responses(octets, tls):
    driver = Driver(PopSettings("gw.example.org", tls=tls))
    if tls == "implicit":
        driver.handshake()
    for piece in octets:
        driver.feed(piece)
    assert driver.said.startswith(b"+OK gw.example.org POP3 ready\r\n")
    if driver.core.tls is None:
        assert not any(isinstance(one, questions.Login) for one in driver.asked)


@given(st.binary(max_size=300).map(lambda octets: octets.replace(b"\r", b"").replace(b"\n", b"\r\n").replace(b"\0", b"")))
def test_what_is_sent_is_read_again(message):
    from mailsec.wire.smtp.data import DataReceiver

    driver = logged_in(messages=[message]).feed(b"RETR 1\r\n")
    receiver = DataReceiver(10_000)
    piece, behind = receiver.receive(driver.said[len(b"+OK\r\n") :])
    assert behind == len(driver.said) - 5
    assert piece in (message, message + b"\r\n")


def test_segments_of_the_layer_above_are_not_joined():
    def blocks():
        for _ in range(100):
            yield b"x" * 998 + b"\r\n"

    driver = logged_in(refuse=Response(True, "here", body=Segments.produced(100_000, blocks)))
    driver.feed(b"RETR 1\r\n")
    assert driver.said.startswith(b"+OK here\r\nxxx") and len(driver.said) == len(b"+OK here\r\n") + 100_000 + 3
