"""A plugin file for tests/plugins_running/test_house.py: fails, leaks, or tells what it sees, where a subject says so."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from mailsec.hookspecs import hookimpl

SEEN = Path(__file__).with_name("seen.json")
leaked = []


@hookimpl
def check_message(transaction, original):
    if original.find(b"Subject: fail") >= 0:
        raise RuntimeError("the house fails")
    if original.find(b"Subject: leak") >= 0:
        leaked.append(Path("/dev/null").open())  # noqa: SIM115 - it leaks
    if original.find(b"Subject: look") >= 0:
        tls = transaction.session.tls
        SEEN.write_text(json.dumps(asdict(tls) if tls is not None else None, default=repr))
