"""A module in this process, over SoftHSM2: tokens by name, keys, certificates, and every operation checked in software."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mailsec.errors import ConfigurationError, CryptoError, KeyUnavailable, TokenError, UsageError
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend
from mailsec.keys.token_handle import TokenHandle
from mailsec.model.mechanism import AgreementMechanism, SignatureMechanism, TransportMechanism
from mailsec.model.trust import TrustFlags
from mailsec.testing.authority import Authority
from mailsec.tokens.module import Module
from mailsec.tokens.state import StateDirectory
from mailsec.x509.issue import make_key

BACKEND = SoftwareBackend()
V15 = SignatureMechanism("rsassa-pkcs1-v1_5", "sha256")
PSS = SignatureMechanism("rsassa-pss", "sha384", "sha384", 48)
ECDSA = SignatureMechanism("ecdsa", "sha256")


def handle(module: Module, key, **options) -> TokenHandle:
    async def ask(verb, key, operation, data):
        return getattr(module, verb)(key.token, key.id, operation, data)

    offered = set(module.token(key.token).offered())
    return TokenHandle(f"{key.token}:{key.label}", key, ask, offered=offered, random=os.urandom, **options)


@pytest.fixture(scope="module")
def keys(module: Module):
    return {kind: module.generate_key("HSM 1", kind, f"key {kind}") for kind in ("rsa-2048", "p256", "ed25519")}


@pytest.mark.parametrize(
    ("kind", "mechanism"), [("rsa-2048", V15), ("rsa-2048", PSS), ("p256", ECDSA), ("ed25519", SignatureMechanism("ed25519"))]
)
def test_a_signature_of_the_token_is_good_in_software(module: Module, keys, kind: str, mechanism: SignatureMechanism):
    signature = run_now(handle(module, keys[kind]).sign(mechanism, b"octets"))
    assert BACKEND.verify(keys[kind].public_key, mechanism, signature, b"octets")
    assert not BACKEND.verify(keys[kind].public_key, mechanism, signature, b"other octets")


@pytest.mark.parametrize("mechanism", [V15, PSS])
def test_with_raw_rsa_the_padding_is_made_in_software(module: Module, keys, mechanism: SignatureMechanism):
    key = handle(module, keys["rsa-2048"], raw_rsa=True)
    key._offered = {"RSA_X_509"}
    assert BACKEND.verify(keys["rsa-2048"].public_key, mechanism, run_now(key.sign(mechanism, b"octets")), b"octets")
    plain = handle(module, keys["rsa-2048"])
    plain._offered = {"RSA_X_509"}
    assert not plain.can(mechanism)


@pytest.mark.parametrize(
    ("mechanism", "raw"),
    [
        (TransportMechanism("rsaes-pkcs1-v1_5"), False),
        (TransportMechanism("rsaes-oaep", "sha1", "sha1"), False),
        (TransportMechanism("rsaes-oaep", "sha256", "sha256"), True),
        (TransportMechanism("rsaes-oaep", "sha512", "sha1", b"label"), True),
    ],
)
def test_a_content_key_is_opened_by_the_token(module: Module, keys, mechanism: TransportMechanism, raw: bool):
    key = handle(module, keys["rsa-2048"], raw_rsa=raw)
    wrapped = run_now(BACKEND.wrap(keys["rsa-2048"].public_key, mechanism, b"k" * 32))
    assert run_now(key.unwrap(mechanism, wrapped)) == b"k" * 32
    assert run_now(key.unwrap(mechanism, wrapped)) == b"k" * 32


def test_oaep_with_a_hash_that_the_token_does_not_know_is_no_accident(module: Module, keys):
    mechanism = TransportMechanism("rsaes-oaep", "sha256", "sha256")
    key = handle(module, keys["rsa-2048"])
    assert key.can(mechanism)
    with pytest.raises(CryptoError, match="does not open rsaes-oaep with sha256"):
        run_now(key.unwrap(mechanism, run_now(BACKEND.wrap(keys["rsa-2048"].public_key, mechanism, b"k" * 32))))
    assert not key.can(mechanism)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("wrong", [bytes(256), b"\xff" * 256, b"\1" * 255, b"", b"\2" * 257])
def test_attack_every_bad_ciphertext_gets_one_answer(module: Module, keys, wrong: bytes, raw: bool):
    key = handle(module, keys["rsa-2048"], raw_rsa=raw)
    if raw:
        key._offered = {"RSA_X_509"}
    mechanisms = [TransportMechanism("rsaes-oaep", "sha1", "sha1")] + ([] if raw else [TransportMechanism("rsaes-pkcs1-v1_5")])
    for mechanism in mechanisms:
        with pytest.raises(CryptoError):
            run_now(key.unwrap(mechanism, wrong))
    # And the token has lost nothing by it.
    assert run_now(handle(module, keys["rsa-2048"]).sign(V15, b"x"))


def test_a_key_agreement_gives_what_software_gives(module: Module, keys):
    peer = ec.generate_private_key(ec.SECP256R1())
    spki = peer.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    public = serialization.load_der_public_key(keys["p256"].public_key)
    assert run_now(handle(module, keys["p256"]).agree(AgreementMechanism(), spki)) == peer.exchange(ec.ECDH(), public)


def test_attack_a_point_that_is_not_on_the_curve_never_reaches_the_token(module: Module, keys):
    spki = keys["p256"].public_key
    with pytest.raises(CryptoError):
        run_now(handle(module, keys["p256"]).agree(AgreementMechanism(), spki[:-1] + bytes([spki[-1] ^ 1])))
    other = ec.generate_private_key(ec.SECP384R1()).public_key()
    other_spki = other.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(CryptoError):
        run_now(handle(module, keys["p256"]).agree(AgreementMechanism(), other_spki))


@pytest.mark.parametrize("kind", ["rsa-2048", "ec-p256", "ed25519"])
def test_a_key_from_outside_with_its_certificate(module: Module, kind: str):
    private = make_key(kind)
    key = module.import_key("HSM 1", private, f"imported {kind}")
    with pytest.raises(UsageError, match="already"):
        module.import_key("HSM 1", private, "again")
    der = Authority().certify(key.public_key, f"{kind}@example.org")
    certificate = module.import_certificate("HSM 1", der, f"imported {kind}")
    assert certificate.id == key.id and certificate.has_key
    module.rename("HSM 1", der, "another name")
    assert [one.label for one in module.certificates("HSM 1") if one.der == der] == ["another name"]
    module.delete_certificate("HSM 1", der)
    module.delete_key("HSM 1", key.id)
    assert all(one.id != key.id for one in module.keys("HSM 1"))
    assert all(one.id != key.id for one in module.certificates("HSM 1"))
    with pytest.raises(UsageError):
        module.delete_key("HSM 1", key.id)


@pytest.mark.parametrize("kind", ["ml-dsa-65", "ml-kem-768"])
def test_what_a_token_does_not_have_is_refused_in_one_sentence(module: Module, kind: str):
    with pytest.raises(TokenError, match=f"token 'HSM 1' makes no {kind} keys"):
        module.generate_key("HSM 1", kind, "new")
    with pytest.raises(TokenError, match=f"token 'HSM 1' takes no {kind} keys"):
        module.import_key("HSM 1", make_key(kind), "from outside")
    assert not {"ML_DSA", "ML_KEM"} & module.token("HSM 1").offered()


def test_attack_a_label_without_end_fills_no_list(module: Module):
    key = module.generate_key("HSM 1", "p256", "endless " * 50_000)
    listed = next(one for one in module.keys("HSM 1") if one.id == key.id)
    assert listed.label.startswith("endless ") and len(listed.label) == 1024
    assert len(module.sign("HSM 1", key.id, "CKM_ECDSA", bytes(32))) == 64
    module.delete_key("HSM 1", key.id)


def test_only_an_nss_database_keeps_trust(module: Module):
    with pytest.raises(TokenError, match="keeps no trust"):
        module.set_trust("HSM 1", Authority().certificate, TrustFlags.parse(",C,"))


def test_attack_hsm_1_is_never_hsm_10(module: Module):
    """The PIN of one token is not tried on another whose name begins alike, and neither are its keys asked there."""
    assert module.token("HSM 1").state.label == "HSM 1"
    assert module.token("HSM 10").state.label == "HSM 10"
    for name in ("HSM", "HSM 100", "hsm 1", "HSM 1 "):
        with pytest.raises(KeyUnavailable, match="has no token"):
            module.token(name)
    with pytest.raises(KeyUnavailable, match="not logged in"):
        module.sign("HSM 10", b"x", "CKM_ECDSA", b"")


def test_a_pin_with_blanks_is_that_pin(module: Module):
    module.login("HSM 10", b"pin with blanks ")
    assert next(one for one in module.tokens() if one.label == "HSM 10").logged_in


def test_no_name_means_the_only_token_or_asks_which(module: Module):
    with pytest.raises(UsageError, match="has 2 tokens: which one is meant") as caught:
        module.token("")
    assert "pkcs11:token=HSM%2010;serial=" in caught.value.hint


def test_two_tokens_with_one_label_are_told_apart_by_serial_or_refused(tmp_path, softhsm, monkeypatch):
    from tests.peers.softhsm import SoftHsm

    hsm = SoftHsm(tmp_path / "twins")
    hsm.add("twin", "1111")
    hsm.add("twin", "2222")
    script = (
        "import sys; from mailsec.tokens.module import Module; from mailsec.tokens.state import StateDirectory\n"
        "from mailsec.errors import UsageError\n"
        "with Module('m', sys.argv[1], state=StateDirectory(sys.argv[2])) as module:\n"
        "    try: module.login('twin', b'1111')\n"
        "    except UsageError as error: print(error.message, error.hint)\n"
        "    serials = [one.serial for one in module.tokens() if one.initialised]\n"
        "    results = []\n"
        "    for serial in serials:\n"
        "        try: module.login(f'pkcs11:token=twin;serial={serial}', b'1111'); results.append('in')\n"
        "        except Exception as error: results.append(type(error).__name__)\n"
        "    print(sorted(results), len(set(serials)))\n"
    )
    done = python(script, hsm.library, str(tmp_path / "state"), environment=hsm.environment)
    assert "has 2 tokens called 'twin': which one is meant?" in done and "pkcs11:token=twin;serial=" in done
    assert "['TokenError', 'in'] 2" in done


def test_eight_processes_that_begin_at_once_take_their_turns_and_all_see_the_token(tmp_path):
    """SoftHSM2's files are read while others may be making them: two that initialise at once miss tokens."""
    from tests.peers.softhsm import SoftHsm

    hsm = SoftHsm(tmp_path / "eight")
    hsm.add("HSM 1", "1234")
    script = (
        "import os, sys; from mailsec.tokens import cryptoki; from mailsec.tokens.module import Module\n"
        "from mailsec.tokens.state import StateDirectory\n"
        "gate, results, inside = os.pipe(), os.pipe(), os.pipe()\n"
        "def told(name, _, inner=[]):\n"
        "    if name == 'C_Initialize': os.write(inside[1], b'('); inner.append(1)\n"
        "    elif inner: os.write(inside[1], b')'); inner.clear()\n"
        "for _ in range(8):\n"
        "    if os.fork() == 0:\n"
        "        cryptoki.observe_calls(told); os.read(gate[0], 1)\n"
        "        with Module('m', sys.argv[1], state=StateDirectory(sys.argv[2])) as module:\n"
        "            os.write(results[1], (','.join(t.label for t in module.tokens() if t.initialised) + ';').encode())\n"
        "        os._exit(0)\n"
        "os.write(gate[1], b'x' * 8)\n"
        "for _ in range(8): os.wait()\n"
        "print(os.read(results[0], 4096).decode(), os.read(inside[0], 4096).decode())\n"
    )
    done = python(script, hsm.library, str(tmp_path / "state"), environment=hsm.environment)
    assert done.split("\n")[0] == "HSM 1;" * 8 + " " + "()" * 8


def test_a_blank_token_is_made_one(tmp_path):
    from tests.peers.softhsm import SO_PIN, SoftHsm

    hsm = SoftHsm(tmp_path / "blank")
    script = (
        "import sys; from mailsec.tokens.module import Module; from mailsec.tokens.state import StateDirectory\n"
        "with Module('m', sys.argv[1], state=StateDirectory(sys.argv[2])) as module:\n"
        f"    print(module.init_token(None, 'new one', b'{SO_PIN}', b'4321').label)\n"
        "    module.login('new one', b'4321'); module.set_pin('new one', b'4321', b'9876')\n"
        "    print(module.generate_key('', 'p256', 'k').key_type)\n"
        "with Module('m', sys.argv[1], state=StateDirectory(sys.argv[2])) as module:\n"
        "    module.login('new one', b'9876'); print([key.label for key in module.keys('')])\n"
    )
    assert python(script, hsm.library, str(tmp_path / "state"), environment=hsm.environment).split("\n")[:3] == [
        "new one",
        "ec:secp256r1",
        "['k']",
    ]


def test_many_threads_sign_with_sessions_of_their_own(module: Module, keys):
    """python-pkcs11's way to initialise crashes here in four of five runs."""
    key = keys["p256"]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda number: module.sign("HSM 1", key.id, "CKM_ECDSA", number.to_bytes(32, "big")), range(400)))
    assert len({bytes(one) for one in results}) == 400


def test_attack_after_a_fork_nothing_is_called(module: Module, keys):
    """softoken would repeat its random numbers in the child: two ECDSA signatures with one nonce give the key away."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            module.sign("HSM 1", keys["p256"].id, "CKM_ECDSA", bytes(32))
            os.write(writer, b"signed")
        except BaseException as error:
            os.write(writer, str(error).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    assert b"CKR_CRYPTOKI_NOT_INITIALIZED" in os.read(reader, 1000)
    assert module.sign("HSM 1", keys["p256"].id, "CKM_ECDSA", bytes(32))


def test_a_missing_module_and_one_that_is_none_are_said_so(tmp_path):
    state = StateDirectory(tmp_path / "state")
    with pytest.raises(ConfigurationError, match="there is no PKCS#11 library"):
        Module("m", str(tmp_path / "absent.so"), state=state)
    (tmp_path / "text.so").write_text("not a library")
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        Module("m", str(tmp_path / "text.so"), state=state)


@pytest.mark.parametrize(
    "operation", ["CKM_NONSENSE", "CKM_RSA_PKCS_PSS:sha256", "CKM_RSA_PKCS_PSS:md5:16", "CKM_RSA_PKCS_PSS:sha256:-1", "", "CKM_ECDSA:x"]
)
def test_attack_an_operation_that_is_none_is_refused_before_the_library(module: Module, keys, operation: str):
    with pytest.raises(CryptoError, match="not an operation"):
        module.sign("HSM 1", keys["p256"].id, operation, b"x")


def python(script: str, *arguments: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr
