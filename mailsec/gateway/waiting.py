"""Rows that wait: why, in words; and the session that they came from, written down so that they can be processed again.

The one invariant: what is read back is what was written, or an error; a row never gains an identity or an origin that it did not have.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from mailsec.errors import Tampered
from mailsec.model.session import Identity, Origin, Session, TlsInfo

__all__ = ["read_session", "why_waiting", "write_session"]

_WHY = {
    "directory": "no directory can say whether the recipient has a certificate to encrypt to",
    "evidence": "nobody can say whether the recipient's certificate was revoked",
}


def why_waiting(need: str) -> str:
    """What a need means, for people: the sender may read it."""
    return "a key is not available" if need.startswith("token:") else _WHY.get(need, "it cannot be processed now")


def write_session(session: Session) -> bytes:
    """The session as JSON. Of TLS is kept what rules may ask; who the client is stands in the identity."""
    tls, identity = session.tls, session.identity
    return json.dumps(
        {
            "id": session.id,
            "listener": session.listener,
            "origin": session.origin.value,
            "peer": session.peer,
            "peer_port": session.peer_port,
            "local": session.local,
            "hostname": session.hostname,
            "helo": session.helo,
            "protocol": session.protocol,
            "tls": None if tls is None else _write_tls(tls),
            "identity": None if identity is None else [identity.name, list(identity.addresses), identity.mechanism],
            "behind_own_mta": session.behind_own_mta,
        },
        separators=(",", ":"),
    ).encode()


def read_session(data: bytes) -> Session:
    """The session of a row; raise Tampered for anything that `write_session` does not write."""
    try:
        value: dict[str, Any] = json.loads(data)
        tls, identity = value["tls"], value["identity"]
        return Session(
            id=_text(value["id"]),
            listener=_text(value["listener"]),
            origin=Origin(value["origin"]),
            peer=_text(value["peer"]),
            peer_port=int(value["peer_port"]),
            local=_text(value["local"]),
            hostname=_text(value["hostname"]),
            helo=_text(value["helo"]),
            protocol=_text(value["protocol"]),
            tls=None if tls is None else _read_tls(tls),
            identity=None if identity is None else Identity(_text(identity[0]), tuple(map(_text, identity[1])), _text(identity[2])),
            behind_own_mta=value["behind_own_mta"] is True,
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise Tampered("the session of a waiting row cannot be read", hint="look at it with mailsec queue show") from error


def _write_tls(tls: TlsInfo) -> list[Any]:
    certificates = [None if der is None else base64.b64encode(der).decode("ascii") for der in (tls.peer_certificate, tls.own_certificate)]
    return [tls.version, tls.cipher, tls.cipher_bits, tls.server_name, tls.group, tls.resumed, tls.peer_verified, *certificates]


def _read_tls(value: list[Any]) -> TlsInfo:
    version, cipher, bits, *rest = value
    if not rest:  # written by a mailsec that kept no more
        return TlsInfo(_text(version), _text(cipher), int(bits))
    name, group, resumed, verified, shown, own = rest
    peer, ours = (None if text is None else base64.b64decode(_text(text), validate=True) for text in (shown, own))
    return TlsInfo(
        _text(version),
        _text(cipher),
        int(bits),
        peer_certificate=peer,
        peer_verified=verified is True,
        server_name=_text(name),
        group=_text(group),
        resumed=resumed is True,
        own_certificate=ours,
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value
