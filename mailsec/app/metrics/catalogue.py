"""Every metric: its name, what it says, its labels, and how workers' values become one. Nothing is shown that does not stand here.

Labels have few values, and never an address, a host of a stranger, or anything else that a peer could make many of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ["CATALOGUE", "Metric"]

_FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SLOW: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0, 432000.0)


class Metric(NamedTuple):
    """One metric. Times are seconds, sizes octets."""

    kind: str
    """ "counter", "gauge" or "histogram"."""
    help: str
    labels: tuple[str, ...] = ()
    merge: str = "sum"
    """How gauges of workers become one: "sum", "max" or "min"."""
    buckets: tuple[float, ...] = ()


CATALOGUE: Final[Mapping[str, Metric]] = {
    # mail comes in
    "mailsec_connections_total": Metric("counter", "Connections that were accepted"),
    "mailsec_connections": Metric("gauge", "Connections that are open"),
    "mailsec_logins_refused_total": Metric("counter", "Logins that were refused"),
    "mailsec_tls_sessions_total": Metric("counter", "TLS sessions of clients", ("version", "cipher", "resumed")),
    "mailsec_tls_failures_total": Metric("counter", "TLS handshakes of clients that failed or were refused", ("listener",)),
    "mailsec_messages_total": Metric("counter", "Messages that were answered, by what became of them", ("origin", "action")),
    "mailsec_message_octets_total": Metric("counter", "Octets of these messages", ("origin",)),
    "mailsec_processing_seconds": Metric("histogram", "From the end of a message to its answer", ("origin",), buckets=_FAST),
    "mailsec_resumed_total": Metric("counter", "Waiting messages that were processed again", ("action",)),
    "mailsec_mailbox_messages_total": Metric("counter", "Messages that were read over POP3"),
    # S/MIME
    "mailsec_verdicts_total": Metric("counter", "Verdicts on messages, by the word of Authentication-Results", ("verdict",)),
    "mailsec_protected_total": Metric("counter", "Messages that were signed or encrypted", ("protection",)),
    "mailsec_key_uses_total": Metric("counter", "Uses of private keys", ("usage", "store", "result")),
    "mailsec_key_use_seconds": Metric("histogram", "How long uses of private keys took", ("usage", "store"), buckets=_FAST),
    "mailsec_tokens": Metric("gauge", "1 where a token can be used, else 0", ("module", "token"), "min"),
    "mailsec_certificate_days_left": Metric(
        "gauge", "Days until a certificate ends that listeners or next hops are shown", ("certificate",), "min"
    ),
    "mailsec_key_certificates_ending": Metric("gauge", "Certificates with keys of ours that end within so many days", ("days",), "max"),
    # mail goes out
    "mailsec_deliveries_total": Metric("counter", "What next hops said, for each recipient", ("result",)),
    "mailsec_delivery_seconds": Metric("histogram", "From the receipt of a message to its delivery", buckets=_SLOW),
    "mailsec_outgoing_connections": Metric("gauge", "Connections to next hops"),
    "mailsec_outgoing_sessions_total": Metric(
        "counter",
        'Connections that next hops took mail on, by their TLS; `peer` is "verified", "unverified", or "clear" without any',
        ("version", "cipher", "peer"),
    ),
    "mailsec_outgoing_tls_failures_total": Metric(
        "counter", "TLS with next hops that failed, was not offered, or was not whom `demanded` asks for", ("demanded",)
    ),
    "mailsec_queue_messages": Metric("gauge", "Messages in the queue", ("state",)),
    "mailsec_queue_oldest_seconds": Metric("gauge", "How long the oldest of them has waited", merge="max"),
    "mailsec_spool_free_octets": Metric("gauge", "Room on the spool's disk", merge="min"),
    "mailsec_spool_free_inodes": Metric("gauge", "Files that the spool's disk has room for", merge="min"),
    # what is asked elsewhere
    "mailsec_dns_questions_total": Metric("counter", "Names that were looked up, without those known already", ("result",)),
    "mailsec_dns_seconds": Metric("histogram", "How long look-ups took", buckets=_FAST),
    "mailsec_plugin_failures_total": Metric("counter", "Failures of plugins", ("plugin", "hook")),
    "mailsec_plugins_resting": Metric(
        "gauge", "Workers in which a plugin is left alone: it failed again and again, or is off", ("plugin",)
    ),
    # processes
    "mailsec_worker_cpu_seconds_total": Metric("counter", "Processor time of workers"),
    "mailsec_worker_resident_octets": Metric("gauge", "Memory of workers"),
    # of the supervisor itself
    "mailsec_up_seconds": Metric("gauge", "Since the start"),
    "mailsec_workers": Metric("gauge", "Workers", ("state",)),
    "mailsec_worker_deaths_total": Metric("counter", "Workers that died and were replaced"),
    "mailsec_generation": Metric("gauge", "The generation that serves"),
    "mailsec_reloads_total": Metric("counter", "Reloads", ("result",)),
    "mailsec_token_hosts": Metric("gauge", "1 where the host of a module runs, else 0", ("module",)),
}
"""By name."""
