"""`mailsec check` refuses a SQLite database, or a spool, on a network file system."""

from __future__ import annotations

from datetime import UTC, datetime

from mailsec.app.commands.init import set_up_database
from mailsec.app.config import load_configuration, surroundings
from mailsec.app.config.render import render


def test_a_database_and_a_spool_on_a_network_file_system_are_refused(tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    set_up_database(tmp_path, "gw.example.org", ["example.org"])
    values = {
        "gateway": {"hostname": "gw.example.org", "domains": ["example.org"]},
        "listener": [{"address": "127.0.0.1:2525", "origin": "internet"}],
        "passphrase": {"method": "file", "file": "passphrase"},
        "relay": {"next_hop": "smtp://[127.0.0.1]:1"},
    }
    (tmp_path / "mailsec.toml").write_text(render(values))
    configuration = load_configuration(str(tmp_path / "mailsec.toml"))
    now = datetime.now(UTC)
    assert not [problem for problem in surroundings.find_surrounding_problems(configuration, None, now) if "network" in problem.message]
    monkeypatch.setattr(surroundings, "network_file_system", lambda path: "nfs4")
    found = [problem for problem in surroundings.find_surrounding_problems(configuration, None, now) if "network" in problem.message]
    assert [problem.path for problem in found] == [("spool", "directory"), ("database", "location")]
    assert all("nfs4" in problem.message for problem in found) and "PostgreSQL" in found[1].hint
