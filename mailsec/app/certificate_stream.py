"""Files of certificates, read one after another: a file of a hundred thousand is never in memory as a whole.

PEM is read block by block; DER and PKCS#7 without PEM are read whole, up to the limit of any file. The one invariant: what stands between PEM
blocks, and blocks of anything but certificates, is passed over; what a certificate is, is decided where it is used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from mailsec.app.files import naming, read_file, reason_of
from mailsec.errors import CertificateError, InputError, LimitExceeded
from mailsec.keys.files import load_certificates
from mailsec.model.limits import DEFAULT_LIMITS, Limits

__all__ = ["CertificateFile"]

_HEAD: Final = 64 * 1024
_LONGEST_LINE: Final = 1024 * 1024
_HINT: Final = "a PKCS#12 file is imported with `mailsec p12 import`"


class CertificateFile:
    """The certificates of one file ("-": standard input), in DER. Iterate once."""

    def __init__(self, path: str, *, limits: Limits = DEFAULT_LIMITS) -> None:
        self.path = path
        self._limits = limits
        self.size = 0
        """Octets of the file."""
        self.place = 0
        """Octets that were read."""

    def __iter__(self) -> Iterator[bytes]:
        """Raise InputError where the file cannot be read, CertificateError where it holds no certificate."""
        try:
            if self.path == "-" or not Path(self.path).is_file():
                yield from self._whole()
                return
            with Path(self.path).open("rb") as file:
                self.size = os.fstat(file.fileno()).st_size
                head = file.read(_HEAD)
                file.seek(0)
                if b"-----BEGIN " not in head:
                    yield from self._whole()
                    return
                yield from self._blocks(file)
        except OSError as error:
            raise InputError(f"cannot read {self.path}: {reason_of(error)}", stage="read") from error

    def _whole(self) -> Iterator[bytes]:
        data = read_file(self.path, limits=self._limits)
        with naming(self.path, _HINT):
            yield from load_certificates(data, limits=self._limits)

    def _blocks(self, file: BinaryIO) -> Iterator[bytes]:
        block: list[bytes] = []
        size, found = 0, False
        while line := file.readline(_LONGEST_LINE):
            self.place += len(line)
            if line.startswith(b"-----BEGIN "):
                block, size = [line], len(line)
            elif block:
                block.append(line)
                size += len(line)
                # A certificate has a limit of its own; a PKCS#7 bundle may hold thousands.
                if size > self._limits.message_size:
                    raise LimitExceeded(
                        "message_size", f"{self.path}: a PEM block of more than {self._limits.message_size} octets", stage="read"
                    )
                if line.startswith(b"-----END "):
                    text, block = b"".join(block), []
                    if (
                        b"CERTIFICATE-----" in text[:80]
                        or b"PKCS7-----" in text[:80]
                        or b"CMS-----" in text[:80]
                        or b"PKCS #7" in text[:80]
                    ):
                        with naming(self.path, _HINT):
                            for der in load_certificates(text, limits=self._limits):
                                found = True
                                yield der
        if not found:
            raise CertificateError(f"{self.path}: no certificate in these octets", hint=_HINT)
