"""Where the demonstration's mail goes: an independent mail server (aiosmtpd) that puts each message into a Maildir, octet for octet.

Run as `python -m mailsec.app.demo.destination MAILDIR`; prints its port, and ends when its standard input closes.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

__all__ = ["main"]


class _Maildir:
    """aiosmtpd's handler: a file in `tmp`, then renamed to `new` (the way of Maildir: no reader sees half a message)."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.number = 0

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        self.number += 1
        name = f"{self.number:06d}.{os.getpid()}.demo"
        temporary = self.directory / "tmp" / name
        temporary.write_bytes(envelope.content)
        temporary.rename(self.directory / "new" / name)
        return "250 2.0.0 delivered"


async def _serve(directory: Path) -> None:
    from aiosmtpd.smtp import SMTP

    loop = asyncio.get_running_loop()
    handler = _Maildir(directory)
    server = await loop.create_server(
        lambda: SMTP(handler, hostname="mail.example.org", decode_data=False, loop=loop, data_size_limit=0), "127.0.0.1", 0
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    server.close()


def main() -> None:
    """Serve until standard input ends."""
    directory = Path(sys.argv[1])
    for name in ("tmp", "new", "cur"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    asyncio.run(_serve(directory))


if __name__ == "__main__":
    main()
