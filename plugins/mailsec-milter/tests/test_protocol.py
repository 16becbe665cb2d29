"""The protocol by itself: negotiation and its edges, order, packets in any pieces, and what an attacker would send."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailsec.errors import Reply
from mailsec.model.limits import DEFAULT_LIMITS
from mailsec_milter.questions import Abandoned, Answer, Broken, Change, Working

LETTER = b"From: alice@example.org\r\nSubject:  two blanks\r\n\tand a fold\r\n\r\nline\r\n.dot\r\n\r\nlast"


def terms(packets):
    command, data = packets[0]
    assert command == "O"
    return struct.unpack("!III", data[:12])


def broken(mta):
    assert mta.closed and isinstance(mta.asked[-1], Broken)
    return mta.asked[-1].reason


# -- negotiation --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [
        ((6, 0x1FF, 0x1FFFFF), (6, 0x133, 0x1FF780)),
        ((6, 0xFF, 0x1FFFFF), (6, 0x33, 0x1FF780)),
        ((6, 0x1FF, 0), (6, 0x133, 0)),
        ((4, 0x1FF, 0x3FF), (4, 0x33, 0x380)),
        ((3, 0x3F, 0xFF), (3, 0x33, 0x80)),
        ((2, 0x3F, 0x7F), (2, 0x33, 0)),
        ((2, 0x1F, 0x7F), (2, 0x13, 0)),
        ((7, 0xFFFFFFFF, 0xFFFFFFFF), (6, 0x133, 0x1FF780)),
    ],
    ids=["Postfix and Sendmail", "without a list of macros", "every answer wanted", "4", "3", "2", "8.12, which quarantines nothing", "7"],
)
def test_nothing_is_asked_for_that_was_not_offered(milter, offered, agreed):
    mta = milter.Mta().feed(milter.offer(*offered))
    assert terms(mta.packets) == agreed and not mta.closed


def test_macros_are_asked_for_by_name_where_the_mta_takes_a_list(milter):
    [(_, data)] = milter.Mta().feed(milter.offer()).packets
    assert b"\0\0\0\2{auth_type} {auth_authen}\0" in data[12:]
    [(_, data)] = milter.Mta().feed(milter.offer(actions=0xFF)).packets
    assert len(data) == 12


@pytest.mark.parametrize(
    ("offered", "why"),
    [
        ((1, 0x1FF, 0), "version 1"),
        ((0, 0x1FF, 0), "version 0"),
        ((6, 0x01, 0), "change header and body"),
        ((6, 0x1FF & ~0x10, 0), "change header and body"),
    ],
)
def test_an_mta_with_which_nothing_can_be_signed_is_told_at_once(milter, offered, why):
    assert why in broken(milter.Mta().feed(milter.offer(*offered)))


def test_an_offer_that_is_cut_off_and_one_too_many(milter):
    assert "cut off" in broken(milter.Mta().feed(milter.packet("O", b"\0\0\0\6")))
    assert "before a client" in broken(milter.Mta().feed(milter.offer(), milter.offer()))


# -- a message ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0x1FFFFF, 0x100000, 0x1FFFFF & ~0xFF080])
def test_every_command_that_wants_an_answer_gets_one(milter, steps):
    mta = milter.Mta().feed(milter.offer(steps=steps), milter.client(), milter.message(LETTER))
    # connect, helo, mail, rcpt, two fields, end of header, body; and the answer to the message itself
    waits = 0 if steps & 0xFF080 else 8
    assert [command for command, _ in mta.packets[1:]] == ["c"] * (waits + 1)
    assert mta.octets == LETTER


def test_without_leading_space_a_blank_is_put_where_the_mta_took_it(milter):
    said = milter.message(LETTER.replace(b":  two", b":two").replace(b": alice", b":alice"))
    mta = milter.Mta().feed(milter.offer(version=3, steps=0xFF), milter.client(), said)
    assert mta.octets == LETTER.replace(b":  two", b": two")


def test_split_at_each_octet(milter):
    said = milter.offer() + milter.client() + milter.message(LETTER, login="alice") + milter.packet("Q")
    whole = milter.Mta(Answer((Change("insert", b"X", b" 1"),), [b"new", b"body"])).feed(said)
    assert whole.closed and whole.packets[1:] == [("i", b"\0\0\0\0X\0 1\0"), ("b", b"newbody"), ("c", b"")]
    for at in range(1, len(said)):
        mta = milter.Mta(Answer((Change("insert", b"X", b" 1"),), [b"new", b"body"])).feed(said[:at]).feed(said[at:])
        assert (mta.said, mta.octets, mta.received, mta.closed) == (whole.said, whole.octets, whole.received, True), at
    assert milter.Mta(Answer((Change("insert", b"X", b" 1"),), [b"new", b"body"])).feed(said, each=1).said == whole.said


def test_what_is_known_of_client_and_login(milter):
    before = milter.macros("C", daemon_name="ORIGINATING") + milter.client("2001:db8::7")
    helo = milter.macros("H", tls_version="TLSv1.3", cipher="X", cipher_bits="256") + milter.packet("H", b"c.example\0")
    [found] = milter.Mta().feed(milter.offer(), before, helo, milter.message(LETTER, login="alice")).received
    assert (found.peer, found.peer_port, found.helo, found.daemon) == ("2001:db8::7", 40000, "c.example", "ORIGINATING")
    assert (found.login, found.mechanism, found.queue_id, found.tls["cipher_bits"]) == ("alice", "PLAIN", "4bXYZ", "256")
    assert str(found.envelope.reverse_path) == "alice@example.org" and found.quarantines


@pytest.mark.parametrize(
    ("connect", "peer"),
    [
        (b"unknown\0U", ""),
        (b"h\0L\0\0/run/x y\0", "unix:/run/x?y"),
        (b"h\x006\0\0IPv6:::1\0", "::1"),
        (b"h\x004\0\x19127.0.0.1\0", "127.0.0.1"),
    ],
)
def test_clients_of_every_family(milter, connect, peer):
    [found] = milter.Mta().feed(milter.offer(), milter.packet("C", connect), milter.message(LETTER)).received
    assert found.peer == peer


def test_parameters_of_the_envelope_are_read_and_unknown_ones_left_to_the_mta(milter):
    said = milter.packet("M", b"<a@example.org>\0SIZE=99\0BODY=8BITMIME\0MT-PRIORITY=3\0RET=HDRS\0")
    said += milter.packet("R", b"<b@example.net>\0NOTIFY=NEVER\0") + milter.packet("R", b"<root>\0")
    said += milter.header([("A", " b")]) + milter.packet("N") + milter.packet("E")
    [found] = milter.Mta().feed(milter.offer(), milter.client(), said).received
    envelope = found.envelope
    assert (envelope.size, envelope.body, envelope.ret) == (99, "8BITMIME", "HDRS")
    assert [(str(one.address), one.notify) for one in envelope.recipients] == [("b@example.net", "NEVER"), ("root@gw.example.org", "")]


def test_the_null_path_and_a_message_without_header_and_body(milter):
    said = milter.packet("M", b"<>\0") + milter.packet("R", b"<b@example.net>\0") + milter.packet("N") + milter.packet("E")
    mta = milter.Mta().feed(milter.offer(), milter.client(), said)
    assert mta.received[0].envelope.reverse_path is None and mta.octets == b"\r\n"


def test_many_messages_and_clients_on_one_connection(milter):
    once = milter.client() + milter.message(LETTER, login="alice") + milter.message(LETTER)
    mta = milter.Mta().feed(milter.offer(), once, milter.packet("K"), once, milter.packet("A"), milter.packet("Q"))
    assert [one.login for one in mta.received] == ["alice", "", "alice", ""] and mta.closed


def test_a_message_that_is_given_up_is_abandoned_and_the_next_is_its_own(milter):
    begun = milter.packet("M", b"<x@y.example>\0") + milter.packet("R", b"<b@example.net>\0") + milter.header([("From", " eve@y.example")])
    mta = milter.Mta().feed(milter.offer(), milter.client(), begun, milter.packet("A"), milter.message(LETTER))
    assert [type(one) for one in mta.asked] == [Abandoned, type(mta.received[0])] and mta.octets == LETTER
    implicit = milter.Mta().feed(milter.offer(), milter.client(), begun, milter.message(LETTER))
    assert implicit.octets == LETTER and str(implicit.received[0].envelope.reverse_path) == "alice@example.org"


def test_the_mta_is_told_that_we_are_at_work(milter):
    mta = milter.Mta(Working(), Working(), Answer()).feed(milter.offer(), milter.client(), milter.message(LETTER))
    assert [command for command, _ in mta.packets[1:]] == ["p", "p", "c"]


def test_a_new_body_goes_in_chunks(milter):
    body = [b"x" * 100_000, memoryview(b"y" * 50_000)]
    mta = milter.Mta(Answer((), body)).feed(milter.offer(), milter.client(), milter.message(LETTER))
    assert [(command, len(data)) for command, data in mta.packets[1:]] == [("b", 65535), ("b", 65535), ("b", 18930), ("c", 0)]


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (Reply(550, "5.7.1", "100% no"), b"550 5.7.1 100%% no\0"),
        (Reply(451, "", "later"), b"451 4.0.0 later\0"),
        (Reply(550, "4.7.1", "odd"), b"550 5.0.0 odd\0"),
        (Reply(550, "5.7.1", "one\r\n250 two"), b"550 5.7.1 one 250 two\0"),
        (Reply(250, "2.0.0", "fine"), b"451 4.3.0 local error, try again later\0"),
        (None, b"451 4.3.0 local error, try again later\0"),
    ],
)
def test_what_is_no_answer_is_a_failure_and_never_an_acceptance(milter, reply, told):
    mta = milter.Mta(reply).feed(milter.offer(), milter.client(), milter.message(LETTER))
    assert mta.packets[1:] == [("y", told)]


def test_drain_ends_the_connection_behind_the_client_that_is_there(milter):
    mta = milter.Mta().feed(milter.offer(), milter.client())
    mta._carry_out(mta.core.drain())
    assert not mta.closed
    assert mta.feed(milter.message(LETTER), milter.packet("K")).closed and mta.packets[-1] == ("c", b"")


# -- attacks ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 512 * 1024 + 1, 0xFFFFFFFF])
def test_attack_four_gigabytes_are_announced(milter, length):
    assert f"packet of {length} octets" in broken(milter.Mta().feed(struct.pack("!I", length)))


@pytest.mark.parametrize("command", "LNBEMRTCHUAK")
def test_attack_commands_before_negotiation(milter, command):
    assert "before negotiation" in broken(milter.Mta().feed(milter.packet(command, b"a\0b\0")))


@pytest.mark.parametrize(
    ("said", "where"),
    [
        ([("L", b"A\0 b\0")], "outside a message"),
        ([("E", b"")], "outside a message"),
        ([("R", b"<b@example.net>\0")], "outside a message"),
        ([("M", b"<a@example.org>\0"), ("B", b"x")], "in an envelope"),
        ([("M", b"<a@example.org>\0"), ("E", b"")], "in an envelope"),
        ([("M", b"<a@example.org>\0"), ("L", b"A\0 b\0"), ("R", b"<b@example.net>\0")], "in a header"),
        ([("M", b"<a@example.org>\0"), ("N", b""), ("L", b"A\0 b\0")], "in a body"),
        ([("M", b"<a@example.org>\0"), ("N", b""), ("C", b"h\0U")], "in a body"),
        ([("?", b"")], "outside a message"),
    ],
)
def test_attack_header_before_mail_and_other_orders(milter, said, where):
    assert where in broken(milter.Mta().feed(milter.offer(), milter.client(), *(milter.packet(*one) for one in said)))


@pytest.mark.parametrize(
    "field",
    [
        b"Subject\0 a\0Bcc: eve@example.net\0",
        b"Subject\0",
        b"Subject\0 a\nBcc: eve@example.net\0",
        b"Subject\0 a\r\n b\0",
        b"Subject\0 a\rb\0",
        b"\0 a\0",
        b"Sub:ject\0 a\0",
        b"Sub\nject\0 a\0",
        b"Sub ject\0 a\0",
        "Süb\0 a\0".encode(),
    ],
)
def test_attack_one_field_that_is_read_as_two(milter, field):
    said = milter.packet("M", b"<a@example.org>\0") + milter.packet("R", b"<b@example.net>\0") + milter.packet("L", field)
    mta = milter.Mta().feed(milter.offer(), milter.client(), said, milter.packet("N"), milter.packet("E"))
    assert mta.packets[-1] == ("y", b"554 5.6.0 a header field that cannot be read in one way only\0") and not mta.received


@pytest.mark.parametrize("body", [b"a\nb", b"a\rb", b"a\0b", b"a\r", b"\n"])
def test_attack_lines_that_end_otherwise(milter, body):
    said = milter.packet("M", b"<a@example.org>\0") + milter.packet("R", b"<b@example.net>\0") + milter.packet("N")
    for pieces in ([body], [body[:1], body[1:]]):
        chunks = b"".join(milter.packet("B", one) for one in pieces)
        mta = milter.Mta().feed(milter.offer(), milter.client(), said, chunks, milter.packet("E"))
        assert mta.packets[-1][1].startswith(b"554 5.6.0 bare") and not mta.received


def test_a_line_end_may_be_cut_between_two_chunks(milter):
    said = milter.packet("M", b"<a@example.org>\0") + milter.packet("R", b"<b@example.net>\0") + milter.packet("N")
    mta = milter.Mta().feed(
        milter.offer(), milter.client(), said, milter.packet("B", b"a\r"), milter.packet("B", b"\nb"), milter.packet("E")
    )
    assert mta.received and mta.octets == b"\r\na\r\nb"


def test_attack_a_string_without_its_nul(milter):
    for command, data in (("L", b"A\0b"), ("M", b"<a@example.org>"), ("D", b"M{auth_authen}\0alice")):
        mta = milter.Mta().feed(milter.offer(), milter.client(), milter.packet("M", b"<a@b.example>\0"), milter.packet(command, data))
        assert "without its NUL" in broken(mta)


def test_attack_a_macro_with_two_values(milter):
    twice = milter.packet("D", b"M{auth_authen}\0alice\0auth_authen\0eve\0")
    assert "two values" in broken(milter.Mta().feed(milter.offer(), milter.client(), twice))
    odd = milter.packet("D", b"M{auth_authen}\0")
    assert "no pairs" in broken(milter.Mta().feed(milter.offer(), milter.client(), odd))


def test_attack_a_login_of_another_moment_signs_nothing(milter):
    """Only the macros that came with MAIL count, once: not those of the client before, of a message given up, or of another command."""
    login = milter.macros("M", auth_authen="alice")
    plain = milter.message(LETTER)
    for before in (
        milter.client() + login + milter.packet("K") + milter.client(),
        milter.client() + login + milter.packet("A"),
        milter.client() + login + milter.packet("M", b"<a@b.example>\0") + milter.packet("A"),
        milter.client() + login + milter.packet("M", b"<a@b.example>\0"),
        milter.macros("C", auth_authen="alice") + milter.client(),
        milter.client() + milter.macros("R", auth_authen="alice") + milter.macros("E", auth_authen="alice"),
        milter.client() + milter.message(LETTER, login="alice"),
    ):
        assert milter.Mta().feed(milter.offer(), before, plain).received[-1].login == ""


def test_attack_ten_thousand_recipients_fields_and_octets(milter):
    limits = replace(DEFAULT_LIMITS, recipients=5, header_fields=5, header_octets=1000, header_field_octets=500, message_size=5000)
    begin = milter.offer() + milter.client()
    mail, rcpt = milter.packet("M", b"<a@example.org>\0"), milter.packet("R", b"<b@example.net>\0")
    field = milter.header([("A", " b")])
    for said, told in (
        (mail + rcpt * 6 + field + milter.packet("N"), b"552 5.5.3 too many recipients\0"),
        (mail + rcpt + field * 6 + milter.packet("N"), b"552 5.3.4 the message is over a limit\0"),
        (mail + rcpt + milter.header([("A", " " + "b" * 600)]) + milter.packet("N"), b"552 5.3.4 the message is over a limit\0"),
        (mail + rcpt + milter.header([("A", " " + "b" * 400)] * 3) + milter.packet("N"), b"552 5.3.4 the message is over a limit\0"),
        (mail + rcpt + milter.packet("N") + milter.packet("B", b"x" * 3000) * 9, b"552 5.3.4 the message is over a limit\0"),
        (mail + field + milter.packet("N"), b"554 5.5.1 no valid recipients\0"),
        (milter.packet("M", b"<a b>\0") + rcpt + milter.packet("N"), b"501 5.1.7 bad address syntax\0"),
    ):
        mta = milter.Mta(limits=limits).feed(begin, said, milter.packet("E"))
        assert mta.packets[-1] == ("y", told) and not mta.received
        assert len(mta.octets) <= 5000
        # and the next one on that connection is none the worse
        assert mta.feed(mail, rcpt, field, milter.packet("N"), milter.packet("E")).packets[-1] == ("c", b"")


def test_no_more_of_a_body_is_wanted_of_a_message_that_is_refused(milter):
    said = (
        milter.packet("M", b"<a@example.org>\0")
        + milter.packet("R", b"<b@example.net>\0")
        + milter.packet("N")
        + milter.packet("B", b"a\nb")
    )
    mta = milter.Mta().feed(milter.offer(steps=0x400), milter.client(), said)
    assert mta.packets[-1] == ("s", b"")


def test_attack_whoever_reaches_the_port_is_no_mta(milter):
    mta = milter.Mta(stranger=True)
    assert mta.closed and mta.said == b"" and "may connect" in mta.asked[-1].reason


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_octets_end_in_an_answer_or_in_the_end_of_the_connection(milter, data):
    command = st.sampled_from([*"ABCDEHKLMNOQRTU", "?", "\0"])
    arguments = st.binary(max_size=40) | st.sampled_from([b"a\0b\0", b"<a@b.example>\0", b"h\x004\0\0127.0.0.1\0", b"Mi\0x\0", b"\0"])
    packets = data.draw(st.lists(st.tuples(command, arguments), max_size=12))
    mta = milter.Mta().feed(milter.offer(), *(milter.packet(*one) for one in packets), data.draw(st.binary(max_size=8)), each=7)
    assert all(name in "Ocsyphim" for name, _ in mta.packets)
    assert sum(one[0] in "cy" for one in mta.packets) <= sum(one[0] in "CHMRLNBETU" for one in packets)
