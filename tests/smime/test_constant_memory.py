"""Promise 9: a 100 MiB message costs at most 64 MiB above an idle process, to sign, verify, encrypt and decrypt."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = r"""
import os, resource, sys, tempfile
sys.path.insert(0, sys.argv[1])
import conftest
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend
from mailsec.mime.index import index_message
from mailsec.model.octets import BLOCK
from mailsec.model.protection import ProtectionPlan
from mailsec.smime.protect import protect_message
from mailsec.smime.unprotect import unprotect_message

class File:
    def __init__(self, file): file.flush(); self.file = file; self.size = os.fstat(file.fileno()).st_size
    def __len__(self): return self.size
    def view(self, start, end): return os.pread(self.file.fileno(), max(0, min(end, self.size) - start), start)
    def find(self, pattern, start=0, end=None):
        end = self.size if end is None else min(end, self.size)
        while start < end:
            at = self.view(start, min(end, start + BLOCK + len(pattern) - 1)).find(pattern)
            if at >= 0: return start + at
            start += BLOCK
        return -1
    def blocks(self, start=0, end=None):
        end = self.size if end is None else min(end, self.size)
        for at in range(start, end, BLOCK): yield self.view(at, min(end, at + BLOCK))

class Scratch:
    def __init__(self): self.file = tempfile.TemporaryFile()
    def append(self, chunk): self.file.write(chunk)
    def seal(self): return File(self.file)
    def discard(self): self.file.close()

key = conftest.authority("CA").person("alice@example.org", "rsa-3072", usage="both")
kind, form = sys.argv[2:]
plain = tempfile.TemporaryFile()
plain.write(b"From: alice@example.org\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhello\r\n--b\r\n")
plain.write(b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: " + kind.encode() + b"\r\n\r\n")
line = b"QUJD" * 19 + b"\r\n" if kind == "base64" else bytes(range(256))
for _ in range(100 * 1024 * 1024 // (len(line) * 4096)): plain.write(line * 4096)
plain.write(b"\r\n--b--\r\n")
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
idle = peak()
def protected():
    if form.startswith("aes"):
        from mailsec.model.protection import EncryptionRecipient
        return run_now(protect_message(index_message(File(plain)),
            ProtectionPlan(encrypt=True, profile="bsi-tr-02102" if form.endswith("gcm") else "default"), signers=[],
            recipients=[EncryptionRecipient(key.certificate)], backend=SoftwareBackend(), random=os.urandom, work=conftest.work,
            at=conftest.AT))
    return run_now(protect_message(index_message(File(plain)), ProtectionPlan(sign=True, form=form), signers=[key],
    backend=SoftwareBackend(), random=os.urandom, work=conftest.work, at=conftest.AT))

segments = protected()
signed = tempfile.TemporaryFile()
written = 0
for piece in segments:
    assert len(piece) <= 1024 * 1024
    written += signed.write(piece)
assert written == len(segments)
result = run_now(unprotect_message(index_message(File(signed)), keys=[key], backend=SoftwareBackend(), scratch=Scratch, work=conftest.work))
if form.startswith("aes"):
    assert result.layers[0].opened and len(result.clear) > 100 * 1000 * 1000, result
else:
    assert [signer.intact for signer in result.layers[0].signers] == [True], result
print(peak() - idle)
"""


@pytest.mark.parametrize(
    ("kind", "form"),
    [("base64", "detached"), ("binary", "detached"), ("base64", "opaque"), ("base64", "aes-256-gcm"), ("binary", "aes-256-cbc")],
)
def test_promise_9_a_100_mib_message_costs_constant_memory(kind: str, form: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(Path(__file__).parent), kind, form], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) <= 64
