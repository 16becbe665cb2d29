"""Configurations: every bad one gives the errors it must give, all at once; the commented one is what the models say."""

from __future__ import annotations

import socket
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.app.config import ConfigurationErrors, gateway_settings, load_configuration
from mailsec.app.config.lines import key_lines
from mailsec.app.config.load import SECTIONS, read_text
from mailsec.app.config.people import people_notes
from mailsec.app.config.render import EXAMPLE, render, toml
from mailsec.app.config.surroundings import find_surrounding_problems
from mailsec.app.opening import open_configuration
from mailsec.errors import ConfigurationError
from mailsec.model.session import Origin

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
BAD = sorted(path.parent for path in HERE.glob("bad/*/mailsec.toml"))


def told(error: ConfigurationErrors) -> str:
    return "".join(f"{problem.message}\n" + (f"  {problem.hint}\n" if problem.hint else "") for problem in error.problems)


@pytest.mark.parametrize("folder", BAD, ids=lambda folder: folder.name)
def test_bad_configuration_gives_its_error(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigurationErrors) as caught:
        load_configuration("mailsec.toml")
    assert told(caught.value) == (folder / "expected-error").read_text()


@pytest.mark.parametrize("folder", BAD, ids=lambda folder: folder.name)
def test_bad_configuration_gives_its_error_to_serve_and_check_too(folder, monkeypatch):
    """They look at the surroundings as well: what is wrong in the file must not break that, and is told together with it."""
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigurationErrors) as caught:
        open_configuration("mailsec.toml")
    for line in (folder / "expected-error").read_text().splitlines():
        assert line.strip() in told(caught.value)


def test_a_literal_secret_is_not_repeated_in_the_error(monkeypatch):
    for name in ("literal-password", "literal-passphrase"):
        monkeypatch.chdir(HERE / "bad" / name)
        with pytest.raises(ConfigurationErrors) as caught:
            load_configuration("mailsec.toml")
        assert "hunter2" not in told(caught.value) + str(caught.value) + repr(caught.value)


def test_the_commented_configuration_is_rendered_from_the_models():
    assert (PROJECT / "conf" / "mailsec.toml").read_text() == render(EXAMPLE), (
        "run: python -m mailsec.app.config.render > conf/mailsec.toml"
    )


@pytest.mark.parametrize("path", sorted((PROJECT / "conf").glob("**/*.toml")), ids=lambda path: path.name)
def test_configurations_of_the_project_are_valid(path):
    load_configuration(str(path))


def test_every_setting_is_documented():
    for name, model in SECTIONS.items():
        assert model.__doc__, name
        for setting, field in model.model_fields.items():
            assert field.description, f"{name}.{setting} has no docstring"


def test_settings_are_what_the_file_says(tmp_path):
    file = tmp_path / "mailsec.toml"
    file.write_text(
        '[gateway]\nhostname = "gw.example.org"\ndomains = ["example.org", ".example.net"]\nlimits = { message_size = 1000, '
        "handshake_timeout = 2 }\n"
        '[[listener]]\naddress = "[::1]:2525"\norigin = "trusted"\nsenders = "@example.org"\n'
        '[relay]\nnext_hop = { to = "smtp://[2001:db8::1]", tls = "verified", username = "gw", password_file = "pw" }\n'
        'routes = { ".example.org" = "lmtp:unix:/run/lmtp" }\n'
    )
    configuration = load_configuration(str(file))
    settings = gateway_settings(configuration)
    (listener,) = settings.listeners
    assert (listener.name, listener.origin, listener.senders) == ("trusted-2525", Origin.TRUSTED, ("@example.org",))
    assert settings.postmaster == "postmaster@example.org" and settings.authserv_id == "gw.example.org"
    assert settings.limits.message_size == 1000 and settings.limits.handshake_timeout == 2.0
    hop = settings.relay.next_hop
    assert (hop.host, hop.port, hop.tls, hop.password_file) == ("2001:db8::1", 25, "verified", str(tmp_path / "pw"))
    assert str(settings.relay.routes[0][1]) == "lmtp:unix:/run/lmtp"
    # Paths are beside the file, wherever the program was started.
    assert configuration.database.location == str(tmp_path / "mailsec.db")


def test_a_missing_file_says_how_to_get_one(tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(str(tmp_path / "none.toml"))
    assert "no such file" in caught.value.message and "mailsec init" in caught.value.hint


def test_attack_configuration_that_everybody_may_write_is_not_read(tmp_path):
    file = tmp_path / "mailsec.toml"
    file.write_text("")
    file.chmod(0o646)
    with pytest.raises(ConfigurationError, match="everybody may write to"):
        read_text(str(file))


def test_a_device_without_end_is_not_read_for_ever():
    with pytest.raises(ConfigurationError, match="larger than"):
        load_configuration("/dev/zero")


def test_lines_of_keys_through_every_form_of_toml():
    text = (
        "a = 1\n"  # 1
        'b."c d".e = """\n[no]\nx = 1\n"""\n'  # 2 to 5
        "[t.u] # [[x]]\n"  # 6
        "k = [\n  1, # one\n  { x = 2, y = '#' },\n]\n"  # 7 to 10
        "[[v]]\n"  # 11
        "l = '''\n]]'''\n"  # 12, 13
        "[[v]]\n"  # 14
        "[v.w]\n"  # 15
        "m = 1979-05-27 07:32:00\n"  # 16
    )
    tomllib.loads(text)
    lines = key_lines(text)
    expected = {
        ("a",): 1,
        ("b", "c d", "e"): 2,
        ("t", "u"): 6,
        ("t", "u", "k", 0): 8,
        ("t", "u", "k", 1, "y"): 9,
        ("v", 0): 11,
        ("v", 0, "l"): 12,
        ("v", 1): 14,
        ("v", 1, "w", "m"): 16,
    }
    assert {path: lines.get(path) for path in expected} == expected


@given(st.text(max_size=200))
def test_the_line_walker_ends_on_any_text(text):
    key_lines(text)


values = st.recursive(
    st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(st.characters(categories=("L", "N")), min_size=1, max_size=8), values, max_size=4))
def test_what_is_rendered_reads_back(document):
    text = "".join(f"{toml({key: value})[2:-2]}\n" for key, value in document.items())
    assert tomllib.loads(text) == document


def test_hundreds_of_listeners_are_checked(tmp_path):
    file = tmp_path / "mailsec.toml"
    entries = "".join(f'[[listener]]\naddress = "127.0.0.1:{port}"\norigin = "internet"\n' for port in range(1, 301))
    file.write_text('[gateway]\nhostname = "gw.example.org"\ndomains = ["example.org"]\n[relay]\nnext_hop = "smtp://a"\n' + entries)
    assert len(load_configuration(str(file)).listeners) == 300


def test_relative_names_do_not_depend_on_the_working_directory(tmp_path, monkeypatch):
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "mailsec.toml").write_text(render(EXAMPLE).replace('"/var/lib/mailsec/spool"', '"spool"'))
    monkeypatch.chdir(tmp_path)
    assert load_configuration("etc/mailsec.toml").spool.directory == str(folder / "spool")


PLAIN = """[gateway]
hostname = "gw.example.org"
domains = ["example.org", ".example.net"]
[relay]
next_hop = "smtp://HOP"
"""


def written(path: Path, text: str, hop: str = "[127.0.0.1]:10026") -> str:
    path.write_text(PLAIN.replace("HOP", hop) + text)
    return str(path)


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("0.0.0.0:25", "[::]:25", True),
        ("127.0.0.1:25", "[::]:25", True),
        ("127.0.0.1:25", "0.0.0.0:25", False),
        ("[::1]:25", "[::]:25", False),
        ("0.0.0.0:25", "0.0.0.0:26", True),
    ],
)
def test_one_port_may_be_listened_on_for_ipv4_and_for_ipv6(tmp_path, first, second, together):
    text = "".join(f'[[listener]]\naddress = "{address}"\norigin = "internet"\n' for address in (first, second))
    path = written(tmp_path / "mailsec.toml", text)
    if together:
        assert len(load_configuration(path).listeners) == 2
    else:
        with pytest.raises(ConfigurationErrors, match="1 error"):
            load_configuration(path)


def test_a_next_hop_that_is_this_machine_by_an_address_of_its_own_is_found(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        own = probe.getsockname()[0]

    def circles(hop: str, address: str) -> list[tuple]:
        path = written(tmp_path / "mailsec.toml", f'[[listener]]\naddress = "{address}"\norigin = "internet"\n', hop)
        found = find_surrounding_problems(load_configuration(path), None, datetime.now(UTC))
        return [one.path for one in found if "in circles" in one.message]

    assert circles(f"[{own}]:2525", "0.0.0.0:2525") == [("relay", "next_hop")]
    assert circles(f"[{own}]:2526", "0.0.0.0:2525") == circles("[192.0.2.1]:2525", "0.0.0.0:2525") == []
    assert circles(f"[{own}]:2525", "127.0.0.1:2525") == circles(f"[{own}]:2525", "[::]:2525") == []


def test_whose_logins_are_addresses_of_others_is_told(tmp_path):
    text = (
        '[[listener]]\naddress = "127.0.0.1:2525"\norigin = "internet"\n'
        '[[authenticator]]\nkind = "dovecot"\nsocket = "unix:/run/x"\ndomains = ["Example.org", "a.example.net", "example.com"]\n'
    )
    loaded = load_configuration(written(tmp_path / "mailsec.toml", text))
    (note,) = people_notes(loaded.authenticators, loaded.gateway.domains)
    assert "authenticator[0]" in note and '"example.com"' in note


def test_a_table_that_stands_twice_is_told_by_its_name(tmp_path):
    path = written(tmp_path / "mailsec.toml", "[tls]\n[tls]\n")
    with pytest.raises(ConfigurationErrors) as caught:
        load_configuration(path)
    assert told(caught.value) == f"{path}:7: not TOML: [tls] stands twice\n  see https://toml.io\n"
