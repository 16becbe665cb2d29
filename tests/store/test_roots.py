"""Mozilla's roots in the database: what a newer list changes, and what a person has decided."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest

from mailsec.keys.certdata import Root
from mailsec.model.trust import TrustFlags
from mailsec.store.roots import install_roots
from mailsec.x509.issue import make_ca, make_key


@pytest.fixture(scope="module")
def ders(at) -> list[bytes]:
    key = make_key("ec-p256")
    return [make_ca(common_name=f"Root {number}", key=key, at=at, random=os.urandom) for number in range(4)]


def test_roots_with_the_bit_are_anchors_for_every_domain_and_others_are_not_here(db, ders, at):
    ends = at + timedelta(days=9)
    roots = [Root("one", ders[0], "C", ends), Root("two: x", ders[1], "p"), Root("three", ders[2], "")]
    told = install_roots(db, roots, at=at)
    assert (told.anchors, told.distrusted, told.added) == (1, 1, 2)
    assert [(anchor.der, anchor.domains, anchor.not_after) for anchor in db.anchors("email")] == [(ders[0], ("*",), ends)]
    assert db.anchors("tls-server") == () and db.distrusted() == (ders[1],)
    assert {entry.nickname for entry in db.entries()} == {"one", "two x"} and db.check() == ()
    again = install_roots(db, roots, at=at)
    assert (again.added, again.changed, again.withdrawn) == (0, 0, 0)


def test_a_newer_list_withdraws_and_changes_what_the_older_one_said(db, ders, at):
    install_roots(db, [Root("one", ders[0], "C"), Root("two", ders[1], "C")], at=at)
    told = install_roots(db, [Root("two", ders[1], "p"), Root("three", ders[2], "C")], at=at)
    assert (told.added, told.changed, told.withdrawn) == (1, 1, 1)
    assert [anchor.der for anchor in db.anchors("email")] == [ders[2]] and db.distrusted() == (ders[1],)


def test_what_a_person_decided_stays(db, ders, at):
    db.add(ders[0], "mine", trust=TrustFlags.parse(",p,"), at=at)
    told = install_roots(db, [Root("one", ders[0], "C")], at=at)
    assert told.kept == 1 and db.anchors("email") == () and db.distrusted() == (ders[0],)
