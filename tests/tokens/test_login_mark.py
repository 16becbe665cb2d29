"""No card is ever blocked by us: the mark of a login that is begun, and who may lift it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mailsec.errors import KeyUnavailable, MailsecError, TokenError
from mailsec.tokens.cryptoki import TokenState
from mailsec.tokens.module import Module
from mailsec.tokens.state import StateDirectory
from tests.peers.gateway import until
from tests.peers.softhsm import Shim


def mark(module: Module) -> dict | None:
    found = list(module.directory.path.glob("login-*.mark"))
    return json.loads(found[0].read_text()) if found else None


def test_a_good_login_leaves_no_mark(shimmed: Module, shim: Shim):
    shimmed.login("HSM 1", b"1234")
    assert mark(shimmed) is None
    assert shim.calls("C_Login") == 1


def test_a_wrong_pin_is_given_once_and_never_again(shimmed: Module, shim: Shim):
    with pytest.raises(TokenError, match="refuses the PIN") as caught:
        shimmed.login("HSM 1", b"wrong")
    assert caught.value.hint == 'to try the PIN once: mailsec token login "HSM 1"'
    standing = mark(shimmed)
    assert standing["verdict"] == "CKR_PIN_INCORRECT" and standing["label"] == "HSM 1" and standing["serial"]
    for _ in range(3):
        with pytest.raises(TokenError, match="an earlier login failed"):
            shimmed.login("HSM 1", b"1234")
    assert shim.calls("C_Login") == 1
    # Out of service, and the other token is not.
    with pytest.raises(KeyUnavailable) as waiting:
        shimmed.sign("HSM 1", b"x", "CKM_ECDSA", b"")
    assert waiting.value.stage == "token:HSM 1"
    shimmed.login("HSM 10", b"pin with blanks ")


def test_attack_a_crash_in_the_login_costs_one_try_after_any_number_of_restarts(shim: Shim, softhsm, tmp_path):
    shim.say("C_Login crash")
    state = tmp_path / "state"
    for _ in range(4):
        start_and_login(shim, softhsm, state, b"1234")
    assert shim.calls("C_Login") == 1
    shim.say()
    # Mended, but nobody has looked: a wrong PIN may have been on its way.
    assert "was cut off" in start_and_login(shim, softhsm, state, b"1234")
    assert shim.calls("C_Login") == 1
    with Module("shim", shim.library, state=StateDirectory(state)) as module:
        module.token("HSM 1").login(b"1234", person=True)
        assert mark(module) is None


def start_and_login(shim: Shim, softhsm, state: Path, pin: bytes) -> str:
    script = (
        "import sys; from mailsec.tokens.module import Module; from mailsec.tokens.state import StateDirectory\n"
        "from mailsec.errors import MailsecError\n"
        "try: Module('shim', sys.argv[1], state=StateDirectory(sys.argv[2])).login('HSM 1', sys.argv[3].encode())\n"
        "except MailsecError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, shim.library, str(state), pin.decode()],
        env={**os.environ, **softhsm.environment, **shim.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGSEGV), done.stderr
    return done.stdout


def test_a_login_without_a_verdict_is_lifted_once_where_the_pin_was_right_before(shimmed: Module, shim: Shim):
    token = shimmed.token("HSM 1")
    token.login(b"1234")
    token.close()
    shim.say("C_Login 0x30")
    with pytest.raises(KeyUnavailable):
        token.login(b"1234", proven=True)
    assert mark(shimmed) == {**mark(shimmed), "verdict": "", "lifted": False}
    # The device is still out: once more by itself, and then not again.
    with pytest.raises(KeyUnavailable):
        token.login(b"1234", proven=True)
    assert mark(shimmed)["lifted"] is True
    shim.say()
    with pytest.raises(TokenError, match="was cut off"):
        token.login(b"1234", proven=True)
    assert shim.calls("C_Login") == 3


def test_a_login_without_a_verdict_is_not_lifted_for_a_pin_that_was_never_right(shimmed: Module, shim: Shim):
    shim.say("C_Login 0x30")
    with pytest.raises(KeyUnavailable):
        shimmed.login("HSM 1", b"1234")
    shim.say()
    with pytest.raises(TokenError, match="was cut off"):
        shimmed.login("HSM 1", b"1234")
    assert shim.calls("C_Login") == 1


@pytest.mark.parametrize("flags", ["0x10000", "0x20000", "0x40000"])
def test_a_mark_is_not_lifted_while_the_token_counts_wrong_pins(shimmed: Module, shim: Shim, flags: str):
    token = shimmed.token("HSM 1")
    shim.say("C_Login 0x30")
    with pytest.raises(KeyUnavailable):
        token.login(b"1234", proven=True)
    shim.say(f"C_GetTokenInfo flags {flags}")
    with pytest.raises(TokenError):
        token.login(b"1234", proven=True)
    assert shim.calls("C_Login") == 1
    assert mark(shimmed) is not None


@pytest.mark.parametrize(("flags", "words"), [("0x20000", "one try left"), ("0x40000", "is locked")])
def test_attack_a_wrong_pin_in_a_file_is_not_the_one_that_blocks_the_card(shimmed: Module, shim: Shim, flags: str, words: str):
    shim.say(f"C_GetTokenInfo flags {flags}")
    with pytest.raises(TokenError, match=words):
        shimmed.login("HSM 1", b"1234")
    assert shim.calls("C_Login") == 0


@pytest.mark.parametrize("code", ["0xA0", "0xA1", "0xA2", "0xA3", "0xA4"])
def test_any_answer_about_the_pin_leaves_the_mark_standing(shimmed: Module, shim: Shim, code: str):
    token = shimmed.token("HSM 1")
    shim.say(f"C_Login {code}")
    with pytest.raises(TokenError):
        token.login(b"1234", proven=True)
    shim.say()
    with pytest.raises(TokenError, match="an earlier login failed"):
        token.login(b"1234", proven=True)
    assert shim.calls("C_Login") == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"module": 1}', b"\xff\xfe"])
def test_attack_a_mark_that_cannot_be_read_stands(shimmed: Module, shim: Shim, content: bytes):
    with pytest.raises(TokenError):
        shimmed.login("HSM 1", b"wrong")
    next(shimmed.directory.path.glob("login-*.mark")).write_bytes(content)
    with pytest.raises(TokenError, match="an earlier login failed"):
        shimmed.token("HSM 1").login(b"1234", proven=True)
    assert shim.calls("C_Login") == 1


def test_without_a_place_for_the_mark_no_pin_is_given(shim: Shim, tmp_path, monkeypatch):
    state = StateDirectory(tmp_path / "state")
    with Module("shim", shim.library, state=state) as module:
        state.path = Path("/proc/self/nowhere")
        with pytest.raises(MailsecError, match="cannot write in"):
            module.login("HSM 1", b"1234")
    assert shim.calls("C_Login") == 0


def test_a_pin_pad_asks_by_itself(shimmed: Module, shim: Shim):
    shim.say("C_GetTokenInfo flags 0x100", "C_Login pad 1234")
    assert shimmed.token("HSM 1").info().pin_pad
    shimmed.login("HSM 1", None)
    assert shimmed.token("HSM 1").info().logged_in


def test_two_processes_do_not_log_in_at_once(shimmed: Module, tmp_path):
    waited = []
    other = StateDirectory(shimmed.directory.path, pause=waited.append)
    token = shimmed.token("HSM 1")
    with (
        shimmed.directory.lock(f"login {token.state.serial} HSM 1"),
        pytest.raises(KeyUnavailable, match="another process"),
        other.lock(f"login {token.state.serial} HSM 1", seconds=0.1),
    ):
        pass
    assert waited


def test_a_pin_that_was_right_in_this_process_is_given_once_more_after_a_loss_that_cuts_the_login_off(shimmed: Module, shim: Shim):
    """Nobody said that it was right earlier: the login before the loss did."""
    token = shimmed.token("HSM 1")
    token.login(b"1234")
    key = shimmed.generate_key("HSM 1", "p256", "lost and found")
    token.functions.logout(token.anchor)
    shim.say("C_Login 0x30")
    with pytest.raises(KeyUnavailable):
        token.sign(key.id, "CKM_ECDSA", b"x" * 32)
    assert mark(shimmed)["verdict"] == ""
    shim.say()
    until(lambda: signs(token, key.id), seconds=10, what="the login by itself")
    assert mark(shimmed) is None


def signs(token, key_id: bytes) -> bool:
    try:
        return len(token.sign(key_id, "CKM_ECDSA", b"x" * 32)) == 64
    except KeyUnavailable:
        return False


def test_attack_a_link_where_a_mark_is_written_leads_nowhere(tmp_path):
    # the directory is the service's, and root may be who tries a PIN
    token = TokenState("HSM 1", "maker", "model", "1", 0)
    state, victim = StateDirectory(tmp_path / "state"), tmp_path / "victim"
    victim.write_text("root's own\n")
    state.set_mark("m", token)
    [standing] = state.path.glob("login-*.mark")
    standing.with_suffix(f".{os.getpid()}").symlink_to(victim)
    with pytest.raises(MailsecError, match="cannot write"):
        state.set_mark("m", token)
    assert victim.read_text() == "root's own\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away, as root does")
def test_what_root_makes_in_the_state_directory_is_the_service_s(tmp_path):
    service = 65534
    os.chown(tmp_path, service, service)
    state = StateDirectory(tmp_path / "state")
    token = TokenState("HSM 1", "maker", "model", "1", 0)
    with state.lock("a module"):
        state.set_mark("hsm", token, verdict="CKR_PIN_INCORRECT")
    made = [state.path, *state.path.iterdir()]
    assert len(made) == 3 and {path.stat().st_uid for path in made} == {service}


def test_a_lock_that_cannot_be_made_is_said(tmp_path):
    state = StateDirectory(tmp_path / "state")
    with state.lock("a module"):
        (lock,) = state.path.iterdir()
    lock.unlink()
    # Attack: a link that leads root elsewhere.
    lock.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MailsecError, match="cannot write in"), state.lock("a module"):
        pass
    assert not (tmp_path / "elsewhere").exists()
