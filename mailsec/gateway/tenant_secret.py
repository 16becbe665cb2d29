"""Mail of a server that many tenants share: its address and its certificate are everybody's, so each message bears a secret of ours, too.

The one invariant: what does not bear it, once and whole, is refused; what does goes on without it. Nobody behind us ever sees it: no next
hop, no report, no spool file.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import replace

from mailsec.errors import Refused, Reply
from mailsec.gateway.rewriting import with_header
from mailsec.model.limits import Limits
from mailsec.model.session import Transaction
from mailsec.model.settings import ListenerSettings

__all__ = ["TenantSecrets"]

# The same words whether it is absent or wrong: whoever tries learns nothing.
_NOT_OURS = Reply(550, "5.7.1", "not accepted from this tenant")


class TenantSecrets:
    """The secrets that listeners ask for (`ListenerSettings.secret_header`)."""

    def __init__(self, listeners: Sequence[ListenerSettings], limits: Limits) -> None:
        self._asked = {one.name: (one.secret_header.lower(), one.secrets) for one in listeners if one.secret_header}
        self._limits = limits

    def admit(self, transaction: Transaction) -> Transaction:
        """The transaction without the field; itself where none is asked for. Raise Refused."""
        asked = self._asked.get(transaction.session.listener)
        if asked is None:
            return transaction
        name, secrets = asked
        message = transaction.message
        found = message.all(name)
        # Attack: many fields, a guess in each. The server that adds the right one takes the others out.
        given = message.value(found[0]).encode() if len(found) == 1 else b""
        # All are compared, each in constant time: how long it takes tells nothing.
        if not given or not sum([hmac.compare_digest(given, secret) for secret in secrets]):
            raise Refused(
                f"the message bears {len(found) or 'no'} {name}" + (" with another secret" if len(found) == 1 else ""),
                hint="the other server adds secret_header with the value in secret_file to all mail that it sends here",
                reply=_NOT_OURS,
                stage="admission",
            )
        return replace(transaction, message=with_header(message, self._limits, remove=found))
