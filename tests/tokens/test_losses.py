"""Cards that are pulled, libraries that forget us, devices that fail: what comes back by itself, and what is only tried once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from mailsec.errors import CryptoError, KeyUnavailable
from mailsec.tokens.module import Module
from mailsec.tokens.state import StateDirectory
from tests.peers.softhsm import Shim

PULLED = ("C_GetSlotList empty", "C_GetTokenInfo 0xE0", "C_OpenSession 0xE0", "C_GetSessionInfo 0xB3", "C_SignInit 0x32", "C_Sign 0x32")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def signing(shimmed: Module, shim: Shim):
    """The first token, logged in, with a key; its clock is the test's."""
    token = shimmed.token("HSM 1")
    token.clock = token._monotonic = Clock()
    token.login(b"1234")
    key = shimmed.generate_key("HSM 1", "p256", "key")
    yield token, key, lambda: token.sign(key.id, "CKM_ECDSA", bytes(32))
    shim.say()
    token.clock.now += 10
    if token.problem:
        token.login(b"1234", person=True)
    shimmed.delete_key("HSM 1", key.id)


def test_a_card_that_is_pulled_and_put_back_signs_again(signing, shim: Shim):
    token, _, sign = signing
    assert sign()
    shim.say(*PULLED)
    for _ in range(3):
        with pytest.raises(KeyUnavailable) as caught:
            sign()
        assert caught.value.stage == "token:HSM 1"
    shim.say()
    token.clock.now += 1.1
    assert sign()


def test_the_sessions_of_threads_come_and_go_and_nobody_is_logged_out(signing, shim: Shim):
    """The one that logged in stays open: libraries end the login with it."""
    token, _, sign = signing
    assert sign()
    logins = shim.calls("C_Login")
    for _ in range(3):
        with ThreadPoolExecutor(2) as threads:
            assert all(threads.map(lambda _: sign(), range(4)))
        session = token.session()
        token.functions.close_session(session)
        # 0xB3 (CKR_SESSION_HANDLE_INVALID): the thread gets another one, and goes on.
        assert sign() and token.session() != token.anchor
    assert token.logged_in and shim.calls("C_Login") == logins


def test_a_card_that_is_out_is_not_looked_for_more_than_once_a_second(signing, shim: Shim):
    token, _, sign = signing
    shim.say(*PULLED)
    for _ in range(20):
        with pytest.raises(KeyUnavailable):
            sign()
    # Each time the number of slots, and then the slots.
    assert shim.calls("C_GetSlotList") == 2
    token.clock.now += 1.1
    with pytest.raises(KeyUnavailable):
        sign()
    assert shim.calls("C_GetSlotList") == 4


@pytest.mark.parametrize("code", ["0xB0", "0xB3", "0x101", "0x60", "0x82", "0x30", "0x90"])
def test_a_loss_that_lasts_is_tried_once_more_and_then_waits(signing, shim: Shim, code: str):
    """Sessions closed, logged out, handles gone, device errors: at most two calls for one message."""
    _, _, sign = signing
    assert sign()
    shim.say(f"C_SignInit {code}")
    with pytest.raises((KeyUnavailable, CryptoError)):
        sign()
    assert shim.calls("C_SignInit") == 2
    shim.say()
    assert sign()


def test_a_login_that_was_lost_is_made_again_with_its_pin(signing, shim: Shim):
    token, _, sign = signing
    before = shim.calls("C_Login")
    for number in (1, 2):  # the key is not known yet, and then it is
        token.functions.logout(token.anchor)
        assert sign()
        assert shim.calls("C_Login") == before + number


def test_a_pin_that_was_changed_meanwhile_is_tried_once(signing, shim: Shim, shimmed: Module):
    token, _, sign = signing
    before = shim.calls("C_Login")
    token.functions.logout(token.anchor)
    shim.say("C_Login 0xA0")
    for _ in range(3):
        with pytest.raises(KeyUnavailable, match="refuses the PIN"):
            sign()
    assert shim.calls("C_Login") == before + 1
    shim.say()
    token.login(b"1234", person=True)
    assert sign()


def test_a_general_error_of_a_signature_waits_and_one_of_a_decryption_is_about_the_octets(signing, shim: Shim, shimmed: Module):
    token, _, sign = signing
    shim.say("C_Sign 0x05")
    with pytest.raises(KeyUnavailable):
        sign()
    shim.say()
    key = shimmed.generate_key("HSM 1", "rsa-2048", "rsa")
    try:
        with pytest.raises(CryptoError):
            token.decrypt(key.id, "CKM_RSA_PKCS", bytes(256))
        # The same answer while the token itself is gone says nothing about the message.
        shim.say("C_Decrypt 0x05", "C_GetTokenInfo 0xE0")
        with pytest.raises(KeyUnavailable):
            token.decrypt(key.id, "CKM_RSA_PKCS", bytes(256))
        shim.say()
    finally:
        shimmed.delete_key("HSM 1", key.id)


def test_a_key_that_asks_for_its_pin_each_time_gets_it(signing, shim: Shim, shimmed: Module, softhsm):
    """CKA_ALWAYS_AUTHENTICATE, as qualified signature cards have it; OpenSC makes the key."""
    token, _, _ = signing
    # By slot: for OpenSC, "HSM 1" is the beginning of "HSM 10".
    options = ("--slot", str(token.slot), "--login", "--pin", "1234", "--id", "616c", "--label", "always")
    softhsm.tool(*options, "--keypairgen", "--key-type", "EC:prime256v1", "--always-auth")
    try:
        key = next(one for one in shimmed.keys("HSM 1") if one.id == b"al")
        assert key.always_authenticate
        before = shim.calls("C_Login")
        for _ in range(3):
            assert token.sign(b"al", "CKM_ECDSA", bytes(32))
        assert shim.calls("C_Login") == before + 3
        # A wrong answer here is a verdict on the PIN, too.
        shim.say("C_Login 0xA0")
        for _ in range(3):
            with pytest.raises(KeyUnavailable, match="refuses the PIN"):
                token.sign(b"al", "CKM_ECDSA", bytes(32))
        assert shim.calls("C_Login") == before + 4
        assert list(shimmed.directory.path.glob("login-*.mark"))
    finally:
        shim.say()
        softhsm.tool(*options, "--delete-object", "--type", "privkey")


def test_a_key_that_is_gone_is_something_to_wait_for(signing, shimmed: Module):
    token, _, _ = signing
    with pytest.raises(KeyUnavailable, match="has no key") as caught:
        token.sign(b"no such key", "CKM_ECDSA", bytes(32))
    assert caught.value.stage == "token:HSM 1"


def test_every_library_is_told_that_there_are_threads(shim: Shim, tmp_path):
    """With C_Initialize(NULL), as python-pkcs11 has it, SoftHSM2 crashes under eight threads in four of five runs."""
    shim.say("C_Initialize locking")
    with Module("shim", shim.library, state=StateDirectory(tmp_path / "state")) as module:
        assert module.tokens()
    assert shim.calls("C_Initialize") == 1
