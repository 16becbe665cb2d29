"""Who a next hop must be to be "verified": names that a certificate holds, and names that it only seems to hold (RFC 9525)."""

from __future__ import annotations

import contextlib
import datetime as dt

import pytest
from OpenSSL import SSL

from mailsec.errors import ProtocolError
from mailsec.model.requests import StartTls
from mailsec.net.tls import server_tls
from mailsec.net.tls_client import check_peer, client_tls
from tests.tls.issuing import Holder, Issuer

CA = Issuer("Names CA", at=dt.datetime.now(dt.UTC).replace(microsecond=0))


def verified(holder: Holder, name: str) -> bool:
    """A handshake in memory with a server that shows `holder`, as a client that wants `name`."""
    request = StartTls(name, "verified")
    server = server_tls(holder.pem, holder.key_pem).serverConnectionForTLS(None)
    client = client_tls(CA.pem)(request).clientConnectionForTLS(None)
    server.set_accept_state()
    client.set_connect_state()
    for _ in range(4):
        for one, other in ((client, server), (server, client)):
            with contextlib.suppress(SSL.WantReadError):
                one.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(65536))
    return check_peer(client, request)


@pytest.mark.parametrize(
    ("hosts", "name"),
    [
        (("mx.example.net",), "mx.example.net"),
        (("mx.example.net",), "MX.Example.NET"),
        (("*.example.net",), "mx.example.net"),
        (("xn--mnchen-3ya.example",), "münchen.example"),
        (("a.example", "mx.example.net"), "mx.example.net"),
    ],
)
def test_host_that_the_certificate_names_is_verified(hosts, name):
    assert verified(CA.issue(*hosts), name)


@pytest.mark.parametrize(
    ("hosts", "name"),
    [
        (("mx.example.org",), "mx.example.net"),
        # RFC 9525 §6.3: one label, the whole label, and not the domain itself.
        (("*.example.net",), "a.mx.example.net"),
        (("*.example.net",), "example.net"),
        (("m*.example.net",), "mx.example.net"),
        (("mx.*.net",), "mx.example.net"),
        (("*",), "localhost"),
        (("mx.example.net.evil.example",), "mx.example.net"),
        # An address is compared with iPAddress only, never with text that looks like one.
        (("192.0.2.7",), "192.0.2.7"),
        (("*.0.2.7",), "192.0.2.7"),
    ],
)
def test_host_that_the_certificate_only_seems_to_name_is_refused(hosts, name):
    with pytest.raises((ProtocolError, SSL.Error)):
        verified(CA.issue(*hosts), name)


def test_common_name_names_no_host():
    with pytest.raises(ProtocolError, match="does not name"):
        verified(CA.issue(addresses=("a@example.net",), common_name="mx.example.net"), "mx.example.net")


def test_certificate_for_clients_or_mail_makes_no_server():
    for purpose in ("client", "mail"):
        with pytest.raises(SSL.Error):
            verified(CA.issue("mx.example.net", purpose=purpose), "mx.example.net")


def test_certificate_that_has_ended_or_not_begun_is_refused():
    day = dt.timedelta(days=1)
    for validity in ({"ends": -day}, {"begins": day}):
        with pytest.raises(SSL.Error):
            verified(CA.issue("mx.example.net", **validity), "mx.example.net")
