"""The command line: `mailsec GROUP COMMAND …`, loaded lazily, with the exit codes that every command shares.

Commands are rows of `COMMANDS`: name, where it is, and its line in `--help`. Nothing is imported before a command is called, so
`mailsec smime verify` starts fast and a broken plugin cannot break it. A plugin's commands stand under its own name, and only that plugin is
imported. A command is a click command that takes the `Output` with
`@click.pass_obj`, gives its answer through `Output.result`, and returns its exit code (None is 0) or raises a MailsecError.

The one invariant: whatever happens, the exit code is one of `EXIT_*`, and with `--json` standard output holds exactly one object on every
exit but 2.
"""

from __future__ import annotations

import errno
import importlib
import io
import sys
from collections.abc import Sequence
from typing import Any

import click

from mailsec import __version__
from mailsec.app.files import reason_of
from mailsec.app.library_child import allow_child
from mailsec.app.output import Output
from mailsec.errors import MailsecError, UsageError

__all__ = ["COMMANDS", "EXIT_CONFIGURATION", "EXIT_INPUT", "EXIT_NO", "EXIT_TEMPORARY", "EXIT_UNEXPECTED", "EXIT_USAGE", "EXIT_YES", "main"]

EXIT_YES = 0
EXIT_NO = 1
"""A negative verdict, or a refusal."""
EXIT_USAGE = 2
EXIT_INPUT = 3
"""The input cannot be read as what was asked for."""
EXIT_UNEXPECTED = 70
EXIT_TEMPORARY = 75
EXIT_CONFIGURATION = 78

_OUTPUT_IS_LOST = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF})

GROUPS: dict[str, str] = {
    "smime": "sign, verify, encrypt, decrypt and inspect messages in files",
    "cms": "CMS objects in files",
    "cert": "certificates of the database",
    "ocsp": "whether certificates were revoked, as responders say",
    "crl": "revocation lists of the database",
    "key": "private keys of the database",
    "p12": "PKCS#12 files",
    "db": "the certificate database itself",
    "module": "PKCS#11 modules: smart cards, HSMs, NSS databases",
    "token": "tokens of PKCS#11 modules, and their PINs",
    "user": "people who may submit mail",
    "partner": "what is agreed with correspondents",
    "queue": "mail that waits",
    "plugin": "plugins of one's own",
    "log": "what was written about mail",
}

SECTIONS: dict[str, tuple[str, ...]] = {
    "Set it up and run it": ("demo", "init", "check", "serve", "status", "reload", "drain", "log", "plugins", "plugin"),
    "Messages": ("explain", "reprocess", "queue", "smime", "cms"),
    "Certificates, keys and people": ("cert", "key", "p12", "ocsp", "crl", "db", "module", "token", "user", "partner"),
}
"""How `mailsec --help` groups its commands; what stands in none (of plugins) comes last."""

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("mailsec.app.commands.demo:demo", "show the main job end to end, on this machine"),
    "init": ("mailsec.app.commands.init:init", "write a configuration, a database and a server certificate"),
    "check": ("mailsec.app.commands.check:check", "find every mistake in a configuration and around it"),
    "serve": ("mailsec.app.commands.serve:serve", "run the gateway"),
    "status": ("mailsec.app.commands.status:status", "tell how a running mailsec is"),
    "reload": ("mailsec.app.commands.status:reload", "bring a changed configuration into force"),
    "drain": ("mailsec.app.commands.status:drain", "take no more mail, and go on delivering"),
    "log find": ("mailsec.app.commands.log:find", "find the lines of the log about an address or a login"),
    "explain": ("mailsec.app.commands.explain:explain", "tell what would happen to a message, and why"),
    "reprocess": ("mailsec.app.commands.reprocess:reprocess", "have a message opened and judged again"),
    "smime sign": ("mailsec.app.commands.smime:sign", "sign a message in a file"),
    "smime verify": ("mailsec.app.commands.smime:verify", "say who signed a message, and whether that can be believed"),
    "smime encrypt": ("mailsec.app.commands.smime_encrypt:encrypt", "encrypt a message in a file"),
    "smime decrypt": ("mailsec.app.commands.smime_decrypt:decrypt", "open an encrypted message in a file"),
    "smime inspect": ("mailsec.app.commands.smime_decrypt:inspect", "show the layers of a message"),
    "cms parse": ("mailsec.app.commands.cms_parse:parse", "show the structure of a CMS object"),
    "cert list": ("mailsec.app.commands.cert:list_certificates", "list the certificates"),
    "cert show": ("mailsec.app.commands.cert:show", "everything about a certificate"),
    "cert find": ("mailsec.app.commands.cert_find:find", "which certificates mail to an address is encrypted for, and why"),
    "cert learnt": ("mailsec.app.commands.cert_learnt:learnt", "certificates that mail has taught: accept, reject, pin or block"),
    "cert bind": ("mailsec.app.commands.cert_bind:bind", "encrypt mail to an address or a whole domain with a certificate"),
    "cert issue": ("mailsec.app.commands.cert_issue:issue", "make a CA, or a certificate from it"),
    "cert request": ("mailsec.app.commands.cert_request:request", "ask an authority outside for a certificate"),
    "cert revoke": ("mailsec.app.commands.cert_revoke:revoke", "revoke a certificate that our own CA issued"),
    "cert import": ("mailsec.app.commands.cert_import:import_certificates", "add certificates from a file"),
    "cert export": ("mailsec.app.commands.cert:export", "write a certificate to a file"),
    "cert trust": ("mailsec.app.commands.cert:trust", "say what a certificate is trusted for"),
    "cert rename": ("mailsec.app.commands.cert:rename", "call a certificate by another nickname"),
    "cert delete": ("mailsec.app.commands.cert:delete", "delete certificates and their keys"),
    "cert verify": ("mailsec.app.commands.cert_verify:verify", "the path of a certificate to an anchor, and every check on it"),
    "ocsp check": ("mailsec.app.commands.ocsp_check:check", "was a certificate revoked? asks its responder"),
    "ocsp verify": ("mailsec.app.commands.ocsp_verify:verify", "may an OCSP response be believed, and what does it say?"),
    "crl list": ("mailsec.app.commands.crl:list_lists", "list the revocation lists"),
    "crl import": ("mailsec.app.commands.crl:import_lists", "add revocation lists from files"),
    "crl fetch": ("mailsec.app.commands.crl:fetch", "fetch revocation lists"),
    "crl delete": ("mailsec.app.commands.crl:delete", "delete revocation lists"),
    "crl issue": ("mailsec.app.commands.crl_issue:issue", "make the revocation list of our own CA"),
    "key list": ("mailsec.app.commands.key:list_keys", "list the private keys, and whom they are for"),
    "key generate": ("mailsec.app.commands.key:generate", "make a key that waits for a certificate"),
    "key import": ("mailsec.app.commands.key:import_key", "add a private key from a file"),
    "key assign": ("mailsec.app.commands.key:assign", "say for whom a key signs and opens"),
    "key delete": ("mailsec.app.commands.key:delete", "delete a private key"),
    "p12 list": ("mailsec.app.commands.p12:list_contents", "what is in a PKCS#12 file"),
    "p12 import": ("mailsec.app.commands.p12:import_contents", "add the keys and certificates of a PKCS#12 file"),
    "p12 export": ("mailsec.app.commands.p12:export_keys", "write private keys with their certificates to a PKCS#12 file"),
    "module add": ("mailsec.app.commands.module:add", "add a PKCS#11 module"),
    "module list": ("mailsec.app.commands.module:list_modules", "list the modules, and those that the system knows"),
    "module remove": ("mailsec.app.commands.module:remove", "forget a module"),
    "module enable": ("mailsec.app.commands.module:enable", "use a module again"),
    "module disable": ("mailsec.app.commands.module:disable", "leave a module alone"),
    "module default": ("mailsec.app.commands.module:default", "say where new keys are made"),
    "token list": ("mailsec.app.commands.token:list_tokens", "list the tokens, and what lies on them"),
    "token init": ("mailsec.app.commands.token:init", "make a token"),
    "token login": ("mailsec.app.commands.token:login", "try a PIN once, and use the token again"),
    "token pin": ("mailsec.app.commands.token:pin", "change a PIN"),
    "token mechanisms": ("mailsec.app.commands.token:mechanisms", "list what a token can do"),
    "token selftest": ("mailsec.app.commands.token:selftest", "use each key of a token, and check the results"),
    "user add": ("mailsec.app.commands.user:add", "add a user"),
    "user list": ("mailsec.app.commands.user:list_users", "list the users"),
    "user password": ("mailsec.app.commands.user:password", "change a password, or keep a user out"),
    "user remove": ("mailsec.app.commands.user:remove", "remove a user"),
    "partner set": ("mailsec.app.commands.partner:set_partner", "agree on settings with a correspondent"),
    "partner show": ("mailsec.app.commands.partner:show", "what holds for a correspondent, and which level says so"),
    "partner list": ("mailsec.app.commands.partner:list_partners", "list what is agreed with correspondents"),
    "partner remove": ("mailsec.app.commands.partner:remove", "forget what is agreed with a correspondent"),
    "db init": ("mailsec.app.commands.db:init", "make an empty database"),
    "db check": ("mailsec.app.commands.db:check", "is every row mailsec's, and is none missing?"),
    "db password": ("mailsec.app.commands.db:password", "change the password of the database"),
    "db backup": ("mailsec.app.commands.db_copies:backup", "write a backup, also while the database is in use"),
    "db restore": ("mailsec.app.commands.db_copies:restore", "put a backup in the place of the database"),
    "db merge": ("mailsec.app.commands.db_copies:merge", "take over what another database knows"),
    "db upgrade": ("mailsec.app.commands.db:upgrade", "bring the database to the schema of this mailsec"),
    "plugins": ("mailsec.app.commands.plugins:plugins", "list the plugins, and who answers each hook"),
    "plugin new": ("mailsec.app.commands.plugin_new:new", "write a small plugin with a passing test, to begin with"),
    "queue list": ("mailsec.app.commands.queue:list_entries", "list the mail that waits"),
    "queue show": ("mailsec.app.commands.queue:show", "show all that is known of a message"),
    "queue hold": ("mailsec.app.commands.queue:hold", "keep messages from going on"),
    "queue release": ("mailsec.app.commands.queue:release", "let held messages go on"),
    "queue retry": ("mailsec.app.commands.queue:retry", "begin anew with messages, held ones too"),
    "queue flush": ("mailsec.app.commands.queue:flush", "try messages now that wait for their next attempt"),
    "queue delete": ("mailsec.app.commands.queue:delete", "throw messages away"),
}
"""Name ("smime verify") to ("module:attribute", one line of help), in the order in which `--help` shows them."""


class LazyGroup(click.Group):
    """A group whose commands are rows of `COMMANDS` below `prefix`."""

    def __init__(self, prefix: str, **attributes: Any) -> None:
        super().__init__(name=prefix or "mailsec", **attributes)
        self.prefix = prefix

    def list_commands(self, ctx: click.Context) -> list[str]:
        if self.prefix:
            names = [name.split(" ", 1)[1] for name in COMMANDS if name.startswith(self.prefix + " ")]
        else:
            names = [name.split(" ", 1)[0] for name in COMMANDS]
        return list(dict.fromkeys([*names, *super().list_commands(ctx)]))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        row = COMMANDS.get(f"{self.prefix} {name}".strip())
        if row is not None:
            module, _, attribute = row[0].partition(":")
            command = getattr(importlib.import_module(module), attribute)
            assert isinstance(command, click.Command)
            command.name = name
            return command
        if not self.prefix and any(known.startswith(name + " ") for known in COMMANDS):
            return LazyGroup(name, help=GROUPS.get(name, ""))
        if not self.prefix and name not in self.commands:
            self._add_commands_of(name)
        return super().get_command(ctx, name)

    def _add_commands_of(self, plugin: str) -> None:
        """The commands of the installed plugin that is called as what was typed: no other is imported, enabled or not."""
        if _is_plugin(plugin):
            from mailsec.plugins import PluginManager

            manager = PluginManager()
            manager.load([plugin])
            manager.providers("register_commands", cli=self)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), 1)
            if not self.prefix and _is_plugin(args[0]):
                raise click.UsageError(f"the plugin {args[0]} brings no commands", ctx) from error
            if near:
                raise click.UsageError(f'there is no command "{args[0]}": did you mean "{near[0]}"?', ctx) from error
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # click would import every command for its help; the table already has the line.
        rows = []
        for name in self.list_commands(ctx):
            row = COMMANDS.get(f"{self.prefix} {name}".strip())
            if row is not None:
                rows.append((name, row[1]))
            elif not self.prefix and name in GROUPS:
                rows.append((name, GROUPS[name]))
            else:
                command = super().get_command(ctx, name)
                rows.append((name, command.get_short_help_str() if command else ""))
        sections = SECTIONS if not self.prefix else {"Commands": tuple(name for name, _ in rows)}
        grouped = {name for names in sections.values() for name in names}
        for title, names in [*sections.items(), ("Of plugins", tuple(name for name, _ in rows if name not in grouped))]:
            found = [row for name in names for row in rows if row[0] == name]
            if found:
                with formatter.section(title):
                    # One width for all sections.
                    formatter.write_dl([(name.ljust(max(len(row[0]) for row in rows)), text) for name, text in found])


def _is_plugin(name: str) -> bool:
    """Whether an installed plugin is called so; it is not imported."""
    from importlib.metadata import entry_points

    from mailsec.plugins import ENTRY_POINT_GROUP

    return bool(entry_points(group=ENTRY_POINT_GROUP, name=name))


def root() -> click.Group:
    """The group `mailsec`."""
    group = LazyGroup(
        "",
        help="A mail security gateway: it signs and verifies S/MIME mail for people who do nothing special.\n\n"
        'Begin with "mailsec demo", or with "mailsec init DIR".',
        epilog='Commands of plugins stand under the name of the plugin; "mailsec plugins" lists those that are installed.',
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    return click.version_option(__version__, prog_name="mailsec", message="%(prog)s %(version)s")(group)


def run(arguments: Sequence[str], output: Output) -> int:
    """Run one command line and return its exit code; errors are printed, and nothing is raised."""
    try:
        try:
            value = root().main(list(arguments), prog_name="mailsec", standalone_mode=False, obj=output)
            output.finish()
            if sys.stdout is not None:
                sys.stdout.flush()  # a short answer is still in its buffer, and must fail here where it can be said
            return value if isinstance(value, int) else EXIT_YES
        except click.exceptions.NoArgsIsHelpError as error:
            # Whoever says nothing asks what can be said.
            print(error.ctx.get_help() if error.ctx is not None else error.message, file=output.err)
            return EXIT_USAGE
        except click.UsageError as error:
            output.error(error.format_message()[:1].lower() + error.format_message()[1:].rstrip("."), _usage_hint(error))
            return EXIT_USAGE
        except click.ClickException as error:
            output.failure(type(error).__name__, "", error.format_message())
            return EXIT_NO
        except (click.Abort, KeyboardInterrupt):
            output.failure("Interrupted", "", "interrupted")
            return 130
        except UsageError as error:
            output.error(error.message, error.hint)
            return EXIT_USAGE
        except MailsecError as error:
            output.mailsec_error(error)
            return error.exit_code
    except BrokenPipeError:
        # Whoever read us has gone (`mailsec … | head`): nothing more can be said.
        sys.stdout = None  # the interpreter would complain again when it flushes at exit
        return EXIT_NO
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OUTPUT_IS_LOST and error.filename is None:
            sys.stdout = None  # what is left in its buffer would fail again at exit
            output.error(f"cannot write the answer: {reason_of(error)}", "where standard output leads to has no room, or is closed")
            return EXIT_TEMPORARY
        from mailsec.app.report import write_report

        where = write_report(error, arguments)
        output.failure(
            type(error).__name__, "", f"unexpected error: {type(error).__name__}: {error}", f"this is a bug; a report for it is in {where}"
        )
        return EXIT_UNEXPECTED


def _usage_hint(error: click.UsageError) -> str:
    option = error.option_name if isinstance(error, click.NoSuchOption) else ""
    shared = option in ("-c", "--config", "-d", "--database", "--json")
    if shared and isinstance(getattr(error.ctx, "command", None), click.Group):
        # Other programs take the configuration before the command.
        return f"{option} stands behind the command, as in mailsec check -c FILE"
    return f'"{error.ctx.command_path} --help" shows what it takes' if error.ctx is not None else ""


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point of `mailsec`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that knows ASCII only shows names of people escaped.
            stream.reconfigure(errors="backslashreplace")
    output = Output()
    allow_child(output)
    code = run(sys.argv[1:] if arguments is None else arguments, output)
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError:
            sys.stdout = None  # what failed was said already, or there is nobody left to say it to
    sys.exit(code)
