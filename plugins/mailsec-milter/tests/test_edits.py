"""What an MTA must change so that its message is the copy that leaves; applied as Postfix does it, and as Sendmail counts."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from mailsec.mime.index import index_message
from mailsec.model.limits import DEFAULT_LIMITS
from mailsec.model.octets import BytesOctets, Segments
from mailsec_milter.edits import Field, changes_between, fields_of, header_of, new_body


def field(text: str) -> Field:
    name, _, value = text.partition(":")
    return Field(name.encode(), value.encode())


def apply(shown, changes, *, gone_still_counts=False):
    """The header of an MTA after `changes`. `gone_still_counts`: a field that was taken away keeps its number (Sendmail)."""
    fields: list[Field | None] = list(shown)
    names = [one.key for one in shown]
    for change in changes:
        if change.kind == "insert":
            fields.insert(change.place, Field(change.name, change.value))
            names.insert(change.place, change.name.lower())
        elif change.kind == "add":
            fields.append(Field(change.name, change.value))
            names.append(change.name.lower())
        else:
            alike = [at for at, name in enumerate(names) if name == change.name.strip().lower() and (fields[at] or gone_still_counts)]
            at = alike[change.place - 1]
            fields[at] = Field(change.name, change.value) if change.value else None
    return [one for one in fields if one is not None]


def by_name(fields):
    found = defaultdict(list)
    for one in fields:
        found[one.key].append((one.name.strip().lower(), one.value))
    return dict(found)


ANY = st.lists(
    st.builds(Field, st.sampled_from([b"A", b"a", b"B", b"Content-Type", b"MIME-Version"]), st.sampled_from([b" 1", b" 2", b" 3"])),
    max_size=8,
)


@settings(max_examples=500, deadline=None)
@given(shown=ANY, wanted=ANY)
def test_within_each_name_the_header_is_the_one_that_was_wanted(shown, wanted):
    changes = changes_between(shown, wanted)
    for gone_still_counts in (False, True):
        assert by_name(apply(shown, changes, gone_still_counts=gone_still_counts)) == by_name(wanted)


def test_new_fields_stand_on_top_in_their_order():
    shown = [field("From: a"), field("Subject: s")]
    wanted = [field("DKIM-Signature: d"), field("Authentication-Results: r"), *shown]
    assert apply(shown, changes_between(shown, wanted)) == wanted


def test_a_forged_result_goes_and_ours_stands_on_top():
    forged = field("Authentication-Results: gw; smime=pass")
    shown = [field("Received: x"), forged, field("Authentication-Results: other; spf=pass"), field("From: a")]
    wanted = [field("Authentication-Results: gw; smime=none"), *(one for one in shown if one is not forged)]
    assert apply(shown, changes_between(shown, wanted)) == wanted


def test_what_says_how_the_body_is_read_is_changed_in_its_place():
    shown = [field("From: a"), field("Content-Type: text/plain"), field("Content-Transfer-Encoding: 8bit"), field("X: y")]
    wanted = [field("From: a"), field("X: y"), field("MIME-Version: 1.0"), field("Content-Type: multipart/signed")]
    changes = changes_between(shown, wanted)
    assert apply(shown, changes) == [field("From: a"), field("Content-Type: multipart/signed"), field("X: y"), field("MIME-Version: 1.0")]


def test_a_header_that_stays_needs_no_change():
    shown = [field("A: 1"), field("A: 2"), field("a: 1")]
    assert changes_between(shown, shown) == []


def test_fields_are_written_with_their_folding_and_without_their_line_end():
    message = index_message(BytesOctets(b"Subject:  a\r\n\tb\r\nX:\r\n\r\nbody"))
    assert fields_of(message) == [Field(b"Subject", b"  a\n\tb"), Field(b"X", b"")]


@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=60), other=st.binary(max_size=60), cuts=st.lists(st.integers(0, 80), max_size=5))
def test_a_body_is_sent_only_where_it_is_another(body, other, cuts):
    message = index_message(BytesOctets(b"A: b\r\n\r\n" + body))
    for new in (body, other):
        octets = b"Top: x\r\nA: b\r\n\r\n" + new
        places = sorted({0, len(octets), *(min(cut, len(octets)) for cut in cuts)})
        segments = Segments([octets[start:end] for start, end in pairwise(places)])
        header = header_of(segments, DEFAULT_LIMITS)
        assert [one.name for one in header.fields] == ["top", "a"]
        sent = new_body(message, segments, header)
        assert (sent is None) == (new == body)
        assert sent is None or b"".join(sent) == new


def test_a_copy_without_header_or_without_body():
    for octets, names in ((b"\r\nbody", []), (b"A: b\r\n", ["a"]), (b"", [])):
        assert [one.name for one in header_of(Segments((octets,)), DEFAULT_LIMITS).fields] == names
