"""ML-DSA and ML-KEM keys on a token through the running gateway: mail is signed with them, KEMRecipientInfo is opened with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mailsec.keys.files import pem
from tests.peers.gateway import until
from tests.peers.inbox import Inbox
from tests.peers.token_world import World

CLI = "import sys; from mailsec.app import cli; cli.main(sys.argv[1:])"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[World]:
    before = dict(os.environ)
    with Inbox() as inbox:
        people = {"dora": "ml-dsa-65", "dirk": "ml-dsa-87", "kim": "ml-kem-768", "kurt": "ml-kem-1024"}
        made = World(tmp_path_factory.mktemp("lattice"), inbox, people=people, lattice=True)
        try:
            made.start()
            until(lambda: made.ready() and made.ready("HSM 10"), what="the tokens")
            yield made
        finally:
            made.gateway.close()
            os.environ.clear()
            os.environ.update(before)


def verified(world: World, octets: bytes) -> dict:
    """As `mailsec smime verify` sees it, which knows no token."""
    directory = world.gateway.directory
    (directory / "token-ca.pem").write_bytes(pem(world.authority.certificate, "CERTIFICATE"))
    (directory / "message").write_bytes(octets)
    command = [sys.executable, "-c", CLI, "smime", "verify", "--json", "--anchor", "token-ca.pem", "message"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60, check=False)
    return json.loads(done.stdout)


@pytest.mark.parametrize(("name", "kind"), [("dora", "ml-dsa-65"), ("dirk", "ml-dsa-87")])
def test_a_lattice_key_that_only_exists_on_a_token_signs_mail(world: World, name: str, kind: str):
    world.send(f"{name}@example.org", f"of {name}")
    told = verified(world, world.arrived(f"of {name}"))
    assert told["trusted"] and told["layers"][0]["signers"][0]["signature"] == kind
    used = [one for one in world.gateway._events("key used") if one["address"] == f"{name}@example.org"]
    assert {"CKM_ML_DSA"} <= {one["operation"] for one in used}


@pytest.mark.parametrize("name", ["kim", "kurt"])
def test_mail_that_is_encrypted_to_a_lattice_key_on_a_token_is_opened(world: World, name: str):
    world.deliver(name, world.encrypted_to(name, f"sealed for {name}"))
    assert f"the secret of sealed for {name}".encode() in world.arrived(f"sealed for {name}")
    used = [one for one in world.gateway._events("key used") if one["address"] == f"{name}@example.org"]
    assert {"CKM_ML_KEM"} <= {one["operation"] for one in used} and {one["usage"] for one in used} == {"decrypt"}


@pytest.mark.parametrize("action", ["hang", "crash", "0x32"])
def test_a_decapsulation_that_hangs_crashes_or_is_cut_off_makes_its_mail_wait_and_no_other(world: World, action: str):
    world.shim.say(f"C_DecapsulateKey {action}")
    world.deliver("kim", world.encrypted_to("kim", f"sealed at {action}"))
    world.send("alice@example.org", f"no {action} here")
    world.arrived(f"no {action} here")
    until(world.waiting, what="the mail that waits")
    assert not any(f"sealed at {action}".encode() in one.octets for one in world.inbox.messages)
    world.shim.say()
    assert f"the secret of sealed at {action}".encode() in world.arrived(f"sealed at {action}", 60)


def test_attack_a_signature_that_does_not_verify_is_not_sent(world: World):
    until(lambda: world.gateway._events("token is ready"), what="the token")
    world.shim.say("C_Sign wrong")
    world.send("dora@example.org", "with a fault")
    until(world.waiting, what="the mail that waits")
    assert not any(b"with a fault" in one.octets for one in world.inbox.messages)
    assert any("does not verify" in str(one) for one in world.gateway._events("key not used"))
    world.shim.say()
    assert verified(world, world.arrived("with a fault", 60))["trusted"]
