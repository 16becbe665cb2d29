"""A plugin file for tests/plugins_running/test_blocking.py: blocks where a subject says so."""

from __future__ import annotations

import time

from mailsec.hookspecs import hookimpl


@hookimpl
def check_message(transaction, original):
    if original.find(b"Subject: block") >= 0:
        time.sleep(600)
    if original.find(b"Subject: linger") >= 0:
        time.sleep(1)
