"""Project Wycheproof's content ciphers and key wraps, through what opens messages."""

from __future__ import annotations

import json

from people import MemoryScratch

from mailsec.algorithms.ciphers import CIPHERS, WRAPS, CipherParameters, cipher_identifier, cipher_parameters
from mailsec.cms.content_cipher import decrypt_into
from mailsec.cms.key_wrap import unwrap_key
from mailsec.errors import CryptoError


def cases_of(vectors, name):
    for group in json.loads((vectors / "wycheproof" / name).read_text())["testGroups"]:
        for case in group["tests"]:
            yield group, case, {field: bytes.fromhex(case[field]) for field in ("key", "iv", "aad", "msg", "ct", "tag") if field in case}


def test_gcm_of_wycheproof(vectors):
    checked = 0
    for group, case, octets in cases_of(vectors, "aes_gcm_test.json"):
        cipher = CIPHERS[f"aes-{group['keySize']}-gcm"]
        try:
            parameters = cipher_parameters(cipher_identifier(cipher, octets["iv"], group["tagSize"] // 8))
        except CryptoError:
            # Nonces and tags of odd lengths are refused before anything is computed.
            assert not 8 <= len(octets["iv"]) <= 64 or group["tagSize"] < 96
            continue
        scratch = MemoryScratch()
        right = decrypt_into(
            scratch, parameters, octets["key"], [octets["ct"]], len(octets["ct"]), associated=octets["aad"], tag=octets["tag"]
        )
        assert right == (case["result"] == "valid"), (case["tcId"], case["comment"])
        if right:
            assert b"".join(scratch.pieces) == octets["msg"]
        checked += 1
    assert checked > 200


def test_cbc_of_wycheproof(vectors):
    for group, case, octets in cases_of(vectors, "aes_cbc_pkcs5_test.json"):
        parameters = CipherParameters(CIPHERS[f"aes-{group['keySize']}-cbc"], octets["iv"])
        scratch = MemoryScratch()
        right = decrypt_into(scratch, parameters, octets["key"], [octets["ct"]], len(octets["ct"]))
        assert right == (case["result"] == "valid"), (case["tcId"], case["comment"])
        if right:
            assert b"".join(scratch.pieces) == octets["msg"]


def test_key_wraps_of_wycheproof(vectors):
    for group, case, octets in cases_of(vectors, "aes_wrap_test.json"):
        try:
            got = unwrap_key(WRAPS[f"aes-{group['keySize']}-wrap"], octets["key"], octets["ct"])
        except CryptoError:
            got = None
        if case["result"] == "valid":
            assert got == octets["msg"], case["tcId"]
        elif case["result"] == "invalid":
            assert got is None, (case["tcId"], case["comment"])
