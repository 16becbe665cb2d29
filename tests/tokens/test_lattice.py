"""ML-DSA and ML-KEM on a token (PKCS#11 3.2): made, listed, brought there, signing and decapsulating; and what a library may do wrong."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from pkcs11.constants import Attribute

from mailsec.cms.decrypt import open_content
from mailsec.cms.encrypt import encrypt_content
from mailsec.cms.enveloped import read_enveloped_data
from mailsec.errors import CryptoError, KeyUnavailable, MailsecError, TokenError, UsageError
from mailsec.interfaces import run_now
from mailsec.keys.request import make_request
from mailsec.keys.software import SoftwareBackend
from mailsec.keys.token_handle import TokenHandle
from mailsec.model.address import Address
from mailsec.model.mechanism import SignatureMechanism
from mailsec.model.octets import Segments
from mailsec.testing.authority import Authority
from mailsec.testing.memory import MemoryScratch
from mailsec.tokens.module import Module
from mailsec.tokens.state import StateDirectory
from mailsec.x509.issue import make_key, public_key_of
from mailsec.x509.request import read_request
from tests.peers.lattice import Lattice
from tests.peers.softhsm import Shim, SoftHsm

BACKEND = SoftwareBackend()
SIGNING = ("ml-dsa-44", "ml-dsa-65", "ml-dsa-87")
OPENING = ("ml-kem-768", "ml-kem-1024")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """One token behind the lattice module, and that behind the shim, which works until it is told otherwise."""
    directory = tmp_path_factory.mktemp("lattice")
    hsm = SoftHsm(directory / "hsm")
    hsm.add("HSM 1", "1234")
    lattice = Lattice(directory / "lattice")
    shim = Shim(directory / "shim", lattice.library)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (hsm.environment | lattice.environment | shim.environment).items():
            patch.setenv(name, value)
        with Module("pq", shim.library, state=StateDirectory(directory / "state")) as module:
            module.login("HSM 1", b"1234")
            keys = {kind: module.generate_key("HSM 1", kind, f"key {kind}") for kind in (*SIGNING, *OPENING, "rsa-2048", "p256")}
            yield SimpleNamespace(module=module, shim=shim, keys=keys, token=module.token("HSM 1"), directory=directory)
            shim.say()


@pytest.fixture
def shim(world: SimpleNamespace) -> Iterator[Shim]:
    yield world.shim
    world.shim.say()
    world.token.keys = {}
    world.token.drop_session()


def handle(world: SimpleNamespace, kind: str, key: Any = None, certificate: bytes | None = None) -> TokenHandle:
    async def ask(verb: str, key: Any, operation: str, data: bytes) -> bytes:
        return getattr(world.module, verb)(key.token, key.id, operation, data)

    offered = set(world.token.offered())
    return TokenHandle(f"HSM 1:{kind}", key or world.keys[kind], ask, offered=offered, random=os.urandom, certificate=certificate)


# -- what there is ---------------------------------------------------------------------------------------------------------------------


def test_such_keys_are_listed_with_their_kind_and_the_token_says_what_it_can_do(world: SimpleNamespace):
    listed = {key.label: key for key in world.module.keys("HSM 1")}
    for kind in (*SIGNING, *OPENING):
        assert listed[f"key {kind}"] == world.keys[kind] and listed[f"key {kind}"].key_type == kind
    uses = {one.name: one.uses for one in world.module.mechanisms("HSM 1")}
    assert uses["CKM_ML_KEM"] == ("encapsulate", "decapsulate") and uses["CKM_ML_DSA"] == ("sign", "verify")


@pytest.mark.parametrize("kind", SIGNING)
def test_a_signature_of_the_token_is_good_in_software(world: SimpleNamespace, kind: str):
    mechanism = SignatureMechanism(kind)
    signature = run_now(handle(world, kind).sign(mechanism, b"octets"))
    assert BACKEND.verify(world.keys[kind].public_key, mechanism, signature, b"octets")
    assert not BACKEND.verify(world.keys[kind].public_key, mechanism, signature, b"other octets")
    assert not handle(world, kind).can(SignatureMechanism(next(other for other in SIGNING if other != kind)))


@pytest.mark.parametrize("kind", OPENING)
def test_what_software_encapsulates_the_token_decapsulates(world: SimpleNamespace, kind: str):
    ciphertext, secret = run_now(BACKEND.encapsulate(world.keys[kind].public_key))
    assert run_now(handle(world, kind).decapsulate(ciphertext)) == secret


@pytest.mark.parametrize("kind", [*SIGNING, *OPENING])
def test_a_key_from_outside_does_the_same_on_the_token(world: SimpleNamespace, kind: str):
    private = make_key(kind)
    key = world.module.import_key("HSM 1", private, "from outside")
    assert key.public_key == public_key_of(private) and key in world.module.keys("HSM 1")
    with pytest.raises(UsageError, match="already"):
        world.module.import_key("HSM 1", private, "again")
    used = handle(world, kind, key)
    if kind in SIGNING:
        run_now(used.sign(SignatureMechanism(kind), b"octets"))
    else:
        ciphertext, secret = run_now(BACKEND.encapsulate(key.public_key))
        assert run_now(used.decapsulate(ciphertext)) == secret
    der = Authority().certify(key.public_key, "dora@example.org")
    assert world.module.import_certificate("HSM 1", der, "from outside").has_key
    world.module.rename("HSM 1", der, "another name")
    world.module.delete_certificate("HSM 1", der)
    world.module.delete_key("HSM 1", key.id)
    assert all(one.id != key.id for one in world.module.keys("HSM 1"))


def test_a_request_is_signed_with_a_key_that_stays_on_the_token(world: SimpleNamespace):
    key = world.keys["ml-dsa-65"]
    made = run_now(make_request(handle(world, "ml-dsa-65"), key.public_key, addresses=[Address.parse("dora@example.org")]))
    assert read_request(made).public_key == key.public_key


@pytest.mark.parametrize("kind", OPENING)
def test_content_that_is_encrypted_to_such_a_key_is_opened_through_the_token(world: SimpleNamespace, kind: str):
    """KEMRecipientInfo (RFC 9629, RFC 9936)."""
    key, segments = enveloped(world, kind)
    assert opened(segments, key).content == b"the secret"


# -- what is not there -------------------------------------------------------------------------------------------------------------------


def test_a_library_without_c_decapsulatekey_is_said_to_decapsulate_nothing(world: SimpleNamespace):
    """It lists CKM_ML_KEM, and has the functions of version 2.40 only."""
    world.shim.say("C_GetInterfaceList 0x54")
    script = (
        "import sys; from mailsec.tokens.module import Module; from mailsec.tokens.state import StateDirectory\n"
        "from mailsec.errors import MailsecError\n"
        "with Module('m', sys.argv[1], state=StateDirectory(sys.argv[2])) as module:\n"
        "    module.login('HSM 1', b'1234'); print('ML_KEM' in module.token('HSM 1').offered(), 'ML_DSA' in module.token('HSM 1').offered())\n"
        "    key = next(key for key in module.keys('HSM 1') if key.key_type == 'ml-kem-768')\n"
        "    try: module.decapsulate('HSM 1', key.id, 'CKM_ML_KEM', bytes(1088))\n"
        "    except MailsecError as error: print(error.message)\n"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", script, world.shim.library, str(world.directory / "other state")],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        world.shim.say()
    assert done.stdout.splitlines() == ["False True", "the token does not do it"], done.stderr
    key = handle(world, "ml-kem-768")
    key._offered.discard("ML_KEM")
    with pytest.raises(CryptoError, match="the token does not decapsulate"):
        run_now(key.decapsulate(bytes(1088)))


def test_other_keys_decapsulate_nothing_and_such_keys_sign_nothing(world: SimpleNamespace):
    with pytest.raises(CryptoError, match="decapsulates nothing"):
        run_now(handle(world, "p256").decapsulate(bytes(1088)))
    for operation in ("CKM_ML_DSA", "CKM_ECDSA"):
        with pytest.raises(CryptoError):
            world.module.sign("HSM 1", world.keys["ml-kem-768"].id, operation, bytes(32))
    for name in ("CKM_ML_KEM:768", "CKM_RSA_PKCS", ""):
        with pytest.raises(CryptoError, match="not a decapsulation"):
            world.module.decapsulate("HSM 1", world.keys["ml-kem-768"].id, name, bytes(1088))


# -- losses --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["0xB3", "0x101", "0x60", "0x30", "0x32"])
def test_a_decapsulation_is_tried_once_more_after_a_loss_and_then_waits(world: SimpleNamespace, shim: Shim, code: str):
    ciphertext, secret = run_now(BACKEND.encapsulate(world.keys["ml-kem-768"].public_key))
    before = shim.calls("C_DecapsulateKey")
    shim.say(f"C_DecapsulateKey {code}")
    with pytest.raises((KeyUnavailable, CryptoError)) as caught:
        run_now(handle(world, "ml-kem-768").decapsulate(ciphertext))
    assert shim.calls("C_DecapsulateKey") == before + 2
    if isinstance(caught.value, KeyUnavailable):
        assert caught.value.stage == "token:HSM 1"
    shim.say()
    assert run_now(handle(world, "ml-kem-768").decapsulate(ciphertext)) == secret


# -- attacks by mail -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 1087, 1089, 1568, 100_000])
def test_attack_a_ciphertext_of_another_length_never_reaches_the_token(world: SimpleNamespace, shim: Shim, size: int):
    before = shim.calls("C_DecapsulateKey")
    shim.say("C_DecapsulateKey -")
    with pytest.raises(CryptoError):
        run_now(handle(world, "ml-kem-768").decapsulate(bytes(size)))
    assert shim.calls("C_DecapsulateKey") == before
    # And a worker that was taken over, which asks the host without a handle, learns nothing but no.
    with pytest.raises(CryptoError):
        world.module.decapsulate("HSM 1", world.keys["ml-kem-768"].id, "CKM_ML_KEM", bytes(size))


def test_attack_an_implicit_rejection_cannot_be_told_from_any_other_failure(world: SimpleNamespace, shim: Shim):
    """FIPS 203 §6.3: a ciphertext that was changed gives a secret that nobody knows; the key wrap does not open with it."""
    key, segments = enveloped(world, "ml-kem-768")
    shim.say("C_DecapsulateKey reject")
    rejected = opened(segments, key)
    shim.say("C_DecapsulateKey 0x40")
    refused = opened(segments, key)
    shim.say()
    assert rejected.content is None and rejected.reasons == refused.reasons
    assert [reason.code for reason in rejected.reasons] == ["cannot-decrypt"]
    assert opened(segments, key).content == b"the secret"


# -- attacks by the library ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", ["0x2001", "0x100000", "0xFFFFFFFFFFFFFFFF"])
def test_attack_a_library_that_says_it_wrote_more_than_it_had_room_for_is_not_read_on(world: SimpleNamespace, shim: Shim, length: str):
    """What lies behind the buffer is other people's mail, and would leave as a signature."""
    shim.say(f"C_Sign length {length}", f"C_Decrypt length {length}")
    with pytest.raises(KeyUnavailable, match="a length that cannot be"):
        world.module.sign("HSM 1", world.keys["ml-dsa-65"].id, "CKM_ML_DSA", b"octets")
    with pytest.raises(MailsecError):
        world.module.decrypt("HSM 1", world.keys["rsa-2048"].id, "CKM_RSA_X_509", b"\1" * 256)
    shim.say()
    assert len(world.module.sign("HSM 1", world.keys["ml-dsa-65"].id, "CKM_ML_DSA", b"octets")) == 3309


@pytest.mark.parametrize("function", ["C_FindObjects", "C_GetMechanismList", "C_GetSlotList"])
@pytest.mark.parametrize("length", ["0x10001", "0x7FFFFFFFFFFFFFFF"])
def test_attack_a_library_that_lists_more_than_there_is_room_for_is_not_believed(
    world: SimpleNamespace, shim: Shim, function: str, length: str
):
    shim.say(f"{function} length {length}")
    with pytest.raises((KeyUnavailable, TokenError)):
        {
            "C_FindObjects": lambda: world.module.keys("HSM 1"),
            "C_GetMechanismList": lambda: world.module.mechanisms("HSM 1"),
            "C_GetSlotList": world.module.tokens,
        }[function]()


def test_attack_a_library_that_finds_objects_without_end_comes_to_an_end(world: SimpleNamespace, shim: Shim):
    shim.say("C_FindObjects length 64")
    with pytest.raises(KeyUnavailable, match="a length that cannot be"):
        world.module.certificates("HSM 1")


@pytest.mark.parametrize("length", ["0", "31", "0x100001", "0xFFFFFFFFFFFFFFFE"])
def test_attack_a_secret_of_another_length_is_none(world: SimpleNamespace, shim: Shim, length: str):
    ciphertext, _ = run_now(BACKEND.encapsulate(world.keys["ml-kem-768"].public_key))
    used = handle(world, "ml-kem-768")
    run_now(used.decapsulate(ciphertext))
    shim.say(f"C_GetAttributeValue length {length}")
    with pytest.raises(CryptoError):
        run_now(used.decapsulate(ciphertext))


@pytest.mark.parametrize("kind", ["ml-dsa-65", "rsa-2048", "p256"])
def test_attack_a_signature_that_does_not_verify_never_leaves(world: SimpleNamespace, shim: Shim, kind: str):
    """One wrong signature of RSA with CRT gives the private key away; and nobody could verify the mail."""
    mechanism = {"rsa-2048": SignatureMechanism("rsassa-pkcs1-v1_5", "sha256"), "p256": SignatureMechanism("ecdsa", "sha256")}
    used = handle(world, kind)
    shim.say("C_Sign wrong")
    with pytest.raises(KeyUnavailable, match="does not verify") as caught:
        run_now(used.sign(mechanism.get(kind, SignatureMechanism(kind)), b"octets"))
    assert caught.value.stage == "token:HSM 1"
    shim.say("C_Sign length 7")
    with pytest.raises((KeyUnavailable, CryptoError)):
        run_now(used.sign(mechanism.get(kind, SignatureMechanism(kind)), b"octets"))


def test_attack_a_library_that_answers_with_the_key_of_somebody_else(world: SimpleNamespace, shim: Shim):
    """It does not look at CKA_ID: of all private keys the first is as good to it as any other."""
    shim.say("C_FindObjectsInit any")
    for kind in ("ml-dsa-87", "p256", "ml-dsa-44"):
        world.token.keys = {}
        mechanism = SignatureMechanism("ecdsa", "sha256") if kind == "p256" else SignatureMechanism(kind)
        run_now(handle(world, kind).sign(mechanism, b"octets"))
    world.token.keys = {}
    with pytest.raises(KeyUnavailable, match="answers with other keys"):
        world.module.sign("HSM 1", b"no such key", "CKM_ML_DSA", b"octets")


def test_attack_two_keys_with_one_id_sign_for_nobody_with_the_wrong_one(world: SimpleNamespace):
    private = [make_key("ec-p256"), make_key("ec-p256")]
    keys = [world.module.import_key("HSM 1", one, f"twin {number}") for number, one in enumerate(private)]
    token = world.token
    with token.writing() as session:
        for one in token.functions.find(session, {Attribute.ID: keys[1].id}):
            token.functions.set_attributes(session, one, {Attribute.ID: keys[0].id})
    outcomes = []
    for key in keys:
        used = handle(world, "p256", dataclasses.replace(key, id=keys[0].id))
        try:
            run_now(used.sign(SignatureMechanism("ecdsa", "sha256"), b"octets"))
            outcomes.append("")
        except KeyUnavailable as error:
            outcomes.append(error.message.rpartition("that ")[2])
    world.module.delete_key("HSM 1", keys[0].id)
    assert sorted(outcomes) == ["", "the key 'HSM 1:p256' does not verify"]


def enveloped(world: SimpleNamespace, kind: str) -> tuple[TokenHandle, bytes]:
    """The key with a certificate, and content that is encrypted to it."""
    certificate = Authority(at=datetime.now(UTC)).certify(world.keys[kind].public_key, "kim@example.org")
    segments = run_now(
        encrypt_content(Segments((b"the secret",)), [certificate], backend=BACKEND, random=os.urandom, cipher="aes-256-gcm")
    ).join()
    return handle(world, kind, certificate=certificate), segments


def opened(octets: bytes, key: TokenHandle) -> SimpleNamespace:
    found = run_now(open_content(read_enveloped_data(octets), [key], scratch=MemoryScratch))
    return SimpleNamespace(
        content=None if found.content is None else bytes(found.content.view(0, len(found.content))), reasons=found.reasons
    )
