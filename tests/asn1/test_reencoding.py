"""Whatever form of BER an element comes in, its DER is one and the same (X.690 §10, §11)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mailsec.asn1.reader import Element, read_element
from mailsec.asn1.writer import header, to_der

Tree = tuple[int, "bytes | list[Tree]"]

LEAVES = st.tuples(st.sampled_from([0x02, 0x04, 0x05, 0x06, 0x0C, 0x13, 0x80, 0x81]), st.binary(max_size=200))
TREES = st.recursive(LEAVES, lambda inner: st.tuples(st.sampled_from([0x30, 0xA0, 0xA3]), st.lists(inner, max_size=4)), max_leaves=12)


def in_der(tree: Tree) -> bytes:
    tag, content = tree
    body = content if isinstance(content, bytes) else b"".join(map(in_der, content))
    return header(tag, len(body)) + body


def long_header(tag: int, size: int, octets: int) -> bytes:
    """A length in more octets than it needs (X.690 §8.1.3.5)."""
    needed = max(octets, (size.bit_length() + 7) // 8, 1)
    return bytes((tag, 0x80 | needed)) + size.to_bytes(needed, "big")


@st.composite
def in_ber(draw: st.DrawFn, tree: Tree) -> bytes:
    tag, content = tree
    if isinstance(content, bytes):
        if tag == 0x04 and draw(st.booleans()):
            # X.690 §8.7.3: a string constructed of pieces.
            cuts = sorted(draw(st.lists(st.integers(0, len(content)), max_size=3)))
            pieces = [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]
            return _around(draw, 0x24, b"".join(in_ber_of_piece(draw, piece) for piece in pieces))
        return long_header(tag, len(content), draw(st.integers(1, 4))) + content if draw(st.booleans()) else in_der(tree)
    return _around(draw, tag, b"".join(draw(in_ber(child)) for child in content))


def in_ber_of_piece(draw: st.DrawFn, piece: bytes) -> bytes:
    return _around(draw, 0x24, header(0x04, len(piece)) + piece) if draw(st.booleans()) else header(0x04, len(piece)) + piece


def _around(draw: st.DrawFn, tag: int, body: bytes) -> bytes:
    how = draw(st.integers(0, 2))
    if how == 0:
        return header(tag, len(body)) + body
    return long_header(tag, len(body), draw(st.integers(1, 4))) + body if how == 1 else bytes((tag, 0x80)) + body + b"\0\0"


def leaves(element: Element) -> list[tuple[int, bytes]]:
    if not element.constructed:
        return [(element.tag, element.content)]
    return [leaf for child in element.children() for leaf in leaves(child)]


@given(st.data(), TREES)
def test_every_form_of_an_element_has_the_same_der(data: st.DataObject, tree: Tree) -> None:
    der = in_der(tree)
    ber = data.draw(in_ber(tree))
    encoded = to_der(read_element(ber))
    assert encoded == der
    assert to_der(read_element(encoded)) == encoded
    assert leaves(read_element(encoded)) == leaves(read_element(der))
