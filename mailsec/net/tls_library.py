"""What pyOpenSSL has no words for, asked of the library below it; nothing but this and `net.tls_memory` reaches below.

The one invariant: where a newer pyOpenSSL does not have these names any more, a context without them is made, or nothing is said; what
depends on them (`set_groups`, `choose_by_name`) says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

from OpenSSL import SSL
from OpenSSL._util import ffi, lib

__all__ = [
    "GROUPS_CAN_BE_SET",
    "choose_by_name",
    "known_groups",
    "library_name",
    "set_groups",
    "was_resumed",
]

GROUPS_CAN_BE_SET: Final = hasattr(lib, "SSL_CTX_set1_curves_list")
_HAS_REUSED: Final = hasattr(lib, "SSL_session_reused")
_HOST_NAME: Final = 0
# RFC 8446 §6.2: unrecognized_name.
_UNRECOGNIZED_NAME: Final = 112
_ALERT_FATAL: Final = 2


def library_name() -> str:
    """The library and its version, for people."""
    import OpenSSL

    return f"pyOpenSSL {OpenSSL.__version__} with {SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode('ascii', 'replace')}"


def known_groups(names: Iterable[str]) -> tuple[str, ...]:
    """Those of `names` that this library has."""
    if not GROUPS_CAN_BE_SET:
        return ()
    return tuple(name for name in names if set_groups(SSL.Context(SSL.TLS_METHOD), (name,)))


def set_groups(context: SSL.Context, names: Iterable[str]) -> bool:
    """Offer and take these key exchange groups, in this order; False where the library cannot."""
    if not GROUPS_CAN_BE_SET:
        return False
    done = bool(lib.SSL_CTX_set1_curves_list(context._context, ":".join(names).encode("ascii")))
    if not done:
        # What was found wrong stays in the library's queue of errors, and would be taken for the next call's.
        while lib.ERR_get_error():
            pass
    return done


def was_resumed(connection: SSL.Connection) -> bool:
    """True where the handshake took up an earlier session."""
    return bool(_HAS_REUSED and lib.SSL_session_reused(connection._ssl))


def choose_by_name(context: SSL.Context, choose: Callable[[bytes | None], SSL.Context | None]) -> object:
    """Let `choose` give the context for the name that a client asks for (None: it asks for none); None refuses it. Keep what is returned.

    pyOpenSSL's own callback can refuse only by an exception, which it prints: a stranger could fill the log.
    """

    def asked(ssl: Any, alert: Any, argument: Any) -> int:
        # Nothing may come out of a callback of C: whatever goes wrong, the handshake fails.
        with suppress(Exception):
            name = lib.SSL_get_servername(ssl, _HOST_NAME)
            chosen = choose(None if name == ffi.NULL else ffi.string(name))
            if chosen is not None:
                connection = SSL.Connection._reverse_mapping[ssl]
                if chosen is not connection.get_context():
                    # Attack: a client answers a HelloRetryRequest after this context was replaced. The library asks its callback again, by
                    # a pointer: with the context it would be gone.
                    connection._mailsec_first = connection.get_context()  # type: ignore[attr-defined]
                    connection.set_context(chosen)
                return 0
        alert[0] = _UNRECOGNIZED_NAME
        return _ALERT_FATAL

    callback = ffi.callback("int (*)(SSL *, int *, void *)", asked)
    lib.SSL_CTX_set_tlsext_servername_callback(context._context, callback)
    return callback
