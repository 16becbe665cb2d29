"""The running gateway, `openssl ocsp` and an HTTP server: what arrives is judged with evidence that was fetched, shared and kept."""

from __future__ import annotations

import datetime as dt
import re
import smtplib

import pytest
from authority import Authority

from mailsec.model.trust import TrustFlags
from mailsec.store.certdb import CertDb
from mailsec.store.evidence import EvidenceStore
from tests.peers.gateway import Gateway, until
from tests.peers.inbox import Inbox
from tests.revocation.conftest import LETTER, signed
from tests.revocation.servers import OpensslResponder, Web

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A gateway that trusts an authority whose responder and lists are on loopback, which the configuration allows."""
    import shutil

    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is absent")
    directory = tmp_path_factory.mktemp("revocation")
    # A list of an authority is evidence about all that it issued: what is tested without one has an authority of its own.
    ca, listing = Authority(at=NOW), Authority("Listing CA", at=NOW)
    # One host for each fault: a host that does not answer is left alone for a while.
    webs = [Web() for _ in range(6)]
    responder = OpensslResponder(program, ca, directory / "responder")
    with Inbox() as inbox:
        gateway = Gateway(
            directory / "gateway",
            inbox.port,
            workers=2,
            revocation={"allow_networks": ["127.0.0.1"], "allow_ports": [responder.port, *(web.port for web in webs)]},
            gateway={"limits": {"fetch_timeout": 2.0}},
        )
        text = (gateway.directory / "passphrase").read_text().splitlines()[0]
        password = text.partition(":")[2] if text.startswith("internal:") else text
        with CertDb.open(str(gateway.directory / "mailsec.db"), password=password.encode()) as database:
            for number, one in enumerate((ca, listing)):
                database.add(one.der, f"CA {number}", trust=TrustFlags.parse(",C,"), domains=("*",), at=NOW)
        scene = Scene(gateway, ca, listing, webs, responder, inbox, password)
        try:
            gateway.start()
            yield scene
        finally:
            gateway.close()
            responder.stop()
            for web in webs:
                web.close()


class Scene:
    def __init__(self, gateway, ca, listing, webs, responder, inbox, password) -> None:
        self.gateway, self.ca, self.listing, self.webs, self.web = gateway, ca, listing, webs, webs[0]
        self.responder, self.inbox, self.password = responder, inbox, password

    def receive(self, person) -> str:
        """The word that the reader sees."""
        before = len(self.inbox.messages)
        with self.gateway.client("internet", timeout=60) as client:
            client.sendmail(person.address, ["alice@example.org"], signed(person))
        until(lambda: len(self.inbox.messages) > before, 60, "delivery")
        octets = self.inbox.messages[before].octets
        assert b"Hello." in octets
        return re.search(rb"smime=([a-z]+)", octets).group(1).decode()


def test_openssl_as_a_responder_good_then_revoked_elsewhere(scene):
    good, bad = scene.ca.person("good@example.net", ocsp=scene.responder.url), scene.ca.person("bad@example.net", ocsp=scene.responder.url)
    scene.ca.revoke(bad)
    scene.responder.start(good, bad)
    assert scene.receive(good) == "pass"
    assert scene.receive(bad) == "policy"
    # Both workers know it from the database, without the responder.
    scene.responder.stop()
    assert {scene.receive(good) for _ in range(4)} == {"pass"}
    assert {scene.receive(bad) for _ in range(4)} == {"policy"}


def test_a_list_over_http(scene):
    bad, good = (scene.listing.person(f"{name}@example.net", crl=scene.web.url("/ca.crl")) for name in ("bad", "good"))
    scene.listing.revoke(bad)
    scene.web.pages["/ca.crl"] = scene.listing.crl()
    assert scene.receive(bad) == "policy"
    # The list is in the database: nobody fetches it again for somebody else of that authority.
    until(lambda: _lists(scene), 20, "the list in the database")
    assert scene.receive(good) == "pass" and scene.web.asked.count("/ca.crl") == 1


def _lists(scene) -> list:
    with CertDb.open(str(scene.gateway.directory / "mailsec.db"), password=scene.password.encode()) as database:
        return list(EvidenceStore(database).lists())


@pytest.mark.parametrize(("number", "page"), [(1, "hang"), (2, "endless"), (3, None), (4, b"<html>")])
def test_responders_that_do_not_answer_delay_and_never_pass(scene, number, page):
    web = scene.webs[number]
    if page is not None:
        web.pages["/ocsp"] = page
    assert scene.receive(scene.ca.person("doubt@example.net", ocsp=web.url("/ocsp"))) == "temperror"
    assert web.asked == ["/ocsp"]


def test_a_responder_that_answers_for_another_certificate_or_replays(scene):
    other = scene.ca.person("other@example.net")
    scene.web.pages["/other"] = lambda request: scene.ca.answer(request, about=other)
    scene.web.pages["/replay"] = lambda request: scene.ca.answer(request, nonce=b"n" * 32)
    for path in ("/other", "/replay"):
        assert scene.receive(scene.ca.person("doubt@example.net", ocsp=scene.web.url(path))) == "temperror"


def test_an_address_that_was_not_allowed_is_not_asked(scene):
    for url in (f"http://127.0.0.2:{scene.web.port}/x", f"http://localhost:{scene.web.port + 1}/x", "http://169.254.169.254/"):
        assert scene.receive(scene.ca.person("ssrf@example.net", ocsp=url)) == "temperror"
    assert "/x" not in scene.web.asked


def test_an_own_key_that_is_revoked_is_not_used(scene):
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    zoe = scene.ca.person("zoe@example.org", ocsp=scene.webs[5].url("/own"))
    scene.ca.revoke(zoe)
    scene.webs[5].pages["/own"] = scene.ca.answer
    pkcs8 = zoe.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    with CertDb.open(str(scene.gateway.directory / "mailsec.db"), password=scene.password.encode()) as database:
        database.add(zoe.der, "zoe", private_key=pkcs8, at=NOW)
    with scene.gateway.client("trusted", timeout=60) as client, pytest.raises(smtplib.SMTPDataError) as caught:
        client.sendmail("zoe@example.org", ["bob@example.net"], LETTER.format(address="zoe@example.org").encode())
    assert caught.value.smtp_code == 550 and b"revoked" in caught.value.smtp_error
    assert [event for event in scene.gateway.events() if event.get("event") == "key revoked" and event["level"] == "error"]
