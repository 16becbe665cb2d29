"""The promises of the command line that hold for every command: exit codes, one JSON object, errors with hints, nothing imported."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import click
import pytest

from mailsec.app import cli
from mailsec.app.output import Output, json_option, printable
from mailsec.errors import ConfigurationError, InputError, MailsecError, TryLater


@json_option
@click.command()
@click.argument("what")
@click.pass_obj
def probe(output: Output, what: str) -> int:
    errors = {"input": InputError("cannot read it", hint="look again", stage="parse"), "later": TryLater("not now")}
    if what in errors:
        raise errors[what]
    if what == "bug":
        raise KeyError("a secret \x1b[31m thing")
    if what == "many":
        error = ConfigurationError("2 errors; nothing was started")
        error.problems = (ConfigurationError("a:1: one", hint="first"), ConfigurationError("a:2: two"))  # type: ignore[attr-defined]
        raise error
    if what == "no":
        output.result({"valid": False}, "it is not")
        return 1
    if what == "nothing":
        return 0
    output.result({"valid": True}, "it is")
    return 0


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.setitem(cli.COMMANDS, "probe", (f"{__name__}:probe", "a probe"))
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _module())
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def call(*arguments: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        return cli.run(arguments, Output(out, err)), out.getvalue(), err.getvalue()

    return call


def _module():
    import types

    module = types.ModuleType(__name__)
    module.probe = probe
    return module


CODES = {"yes": 0, "no": 1, "input": 3, "bug": 70, "later": 75, "many": 78, "nothing": 0}


@pytest.mark.parametrize("what", CODES)
def test_exit_code(run, what):
    assert run("probe", what)[0] == CODES[what]


@pytest.mark.parametrize("what", CODES)
def test_json_is_exactly_one_object_on_every_exit(run, what):
    code, out, _err = run("probe", "--json", what)
    value = json.loads(out)
    assert isinstance(value, dict) and "error" in value
    assert (value["error"] is None) == (code in (0, 1))


def test_usage_errors_leave_standard_output_empty(run):
    for arguments in (("probe", "--json"), ("probe", "--json", "--bad", "x"), ("nonsense",)):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("mailsec: error: ")


def test_a_misspelt_command_is_suggested(run):
    assert 'did you mean "probe"?' in run("prob")[2]


def test_an_error_is_one_sentence_with_a_hint(run):
    _code, out, err = run("probe", "input")
    assert (out, err) == ("", "mailsec: error: cannot read it\nmailsec: hint: look again\n")


def test_all_problems_of_a_configuration_are_told(run):
    _code, out, err = run("probe", "--json", "many")
    assert [line for line in err.splitlines() if "error:" in line] == ["mailsec: error: a:1: one", "mailsec: error: a:2: two"]
    assert err.splitlines()[-1] == "mailsec: 2 errors; nothing was started"
    assert [problem["message"] for problem in json.loads(out)["errors"]] == ["a:1: one", "a:2: two"]


def test_an_unexpected_error_is_a_report_and_never_a_traceback(run, tmp_path):
    _code, _out, err = run("probe", "bug")
    assert "Traceback" not in err and "\x1b" not in err
    (report,) = tmp_path.glob("mailsec-report-*.txt")
    assert str(report) in err
    assert "Traceback" in report.read_text() and "command: probe" in report.read_text()
    assert report.stat().st_mode & 0o077 == 0


def test_escape_sequences_from_outside_are_escaped():
    assert printable("a\x1b[31mb\u202ec\x00") == "a\\x1b[31mb\\u202ec\\x00"
    assert printable("Grüße, 名") == "Grüße, 名"


def test_tables_are_plain_where_nobody_watches():
    out = io.StringIO()
    Output(out).table(["name", "what"], [["a", "long value"], ["bb", None]])
    assert out.getvalue() == "NAME  WHAT\na     long value\nbb\n"


def test_help_lists_every_command_and_imports_none_of_them():
    script = (
        "import sys; from mailsec.app import cli; from mailsec.app.output import Output; cli.run(['--help'], Output());"
        "print([m for m in sys.modules if m.startswith(('mailsec.app.commands.', 'twisted', 'rich', 'sqlalchemy', 'pydantic', 'cryptography'))])"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"
    for name in cli.COMMANDS:
        assert name.split()[0] in out


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_of_the_table_is_there_and_has_help(name):
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", out)
        assert cli.run([*name.split(), "--help"], Output()) == 0
    assert "Usage: mailsec " + name in out.getvalue()


def test_errors_of_the_tree_have_exit_codes_of_the_list():
    codes = {cli.EXIT_NO, cli.EXIT_USAGE, cli.EXIT_INPUT, cli.EXIT_TEMPORARY, cli.EXIT_CONFIGURATION}
    pending = [MailsecError]
    while pending:
        cls = pending.pop()
        assert cls.exit_code in codes
        pending.extend(cls.__subclasses__())
