"""What is taken out of a header before anything else happens: results that claim to be ours, seals, and fields that hide recipients.

RFC 8601 §5: a receiver removes results that bear its own name. The one invariant: only whole outer fields go; not an octet inside a signed
part, and no field of another authserv-id.
"""

from __future__ import annotations

from dataclasses import replace

from mailsec.gateway.rewriting import with_header
from mailsec.gateway.seal import seal_fields
from mailsec.gateway.tools import Tools
from mailsec.mime.fields import encode_field
from mailsec.mime.results import forged_results
from mailsec.model.message import HeaderField
from mailsec.model.session import Origin, Session, Transaction

__all__ = ["strip"]

_HIDDEN = frozenset({"bcc", "resent-bcc"})


def strip(tools: Tools, received: Transaction) -> Transaction:
    """The transaction without forged results, seals and, on `submission` and `trusted`, without Bcc and Resent-Bcc; itself where there are none."""
    message, session = received.message, received.session
    method = "smime" if _has_results_of_its_own(session) else None
    forged = forged_results(message, tools.settings.authserv_id, method=method)
    # Who reads a seal has read it before: here it is somebody's who copied it, or of a message that came round.
    remove: tuple[HeaderField, ...] = (*forged.remove, *seal_fields(message))
    if session.origin.outbound:
        # RFC 5322 §3.6.3: Bcc is taken out before the message is sent; forwarded, it would show who was hidden
        hidden = tuple([field for field in message.fields if field.name in _HIDDEN])
        remove = (*remove, *hidden)
    if not remove:
        return received
    add = b"".join(encode_field(name, value) for name, value in forged.add)
    return replace(received, message=with_header(message, tools.limits, remove=remove, add=add))


def _has_results_of_its_own(session: Session) -> bool:
    """True where our own MTA may have written results under our name: only `smime` ones are then forged.

    `submission` and an `internet` listener that strangers reach have none that can be believed.
    """
    return session.origin in (Origin.TRUSTED, Origin.MAILBOX) or session.behind_own_mta
