"""The options of commands that sign: who signs, and in which form."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mailsec.app.options import DatabaseChoice

if TYPE_CHECKING:
    from mailsec.app.output import Output
    from mailsec.interfaces import KeyHandle
    from mailsec.model.message import Message

__all__ = ["SignerInputs", "header_protection_option", "profile_option", "signer_options"]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class SignerInputs:
    """What the options said."""

    key: str = ""
    certificate: str = ""
    chain: tuple[str, ...] = ()
    p12: str = ""
    signer: str = ""
    detached: bool = True
    password_file: str = ""
    password: str = field(default="", repr=False)
    p12_password_file: str = ""
    p12_password: str = field(default="", repr=False)
    pin_file: str = ""

    @property
    def named(self) -> bool:
        """Whether they name anybody."""
        return bool(self.key or self.certificate or self.p12 or self.signer)

    @property
    def form(self) -> str:
        """As `ProtectionPlan.form`."""
        return "detached" if self.detached else "opaque"

    def find(self, output: Output, database: DatabaseChoice, message: Message) -> KeyHandle:
        """The key, with its certificate and chain; without a name, the one for the From address. Raise UsageError, InputError, KeyUnavailable."""
        from mailsec.app.signing import SignerChoice, find_signer, secret_option
        from mailsec.smime.identity import read_author

        choice = SignerChoice(
            self.key,
            self.certificate,
            self.chain,
            self.p12,
            self.signer,
            secret_option(output, database, "password", self.password, self.password_file),
            secret_option(output, database, "p12-password", self.p12_password, self.p12_password_file),
            self.pin_file,
        )
        return find_signer(output, choice, database, read_author(message).address)


def signer_options(nobody: str) -> Callable[[F], F]:
    """Add the options; the command gets them as one argument `signer`, a SignerInputs. `nobody` says what happens where they name nobody."""

    def decorate(command: F) -> F:
        @click.option("--key", metavar="FILE", default="", help="A private key (PEM or DER) that signs, with --cert.")
        @click.option("--cert", "certificate", metavar="FILE", default="", help="Its certificate; further ones in the file are its chain.")
        @click.option("--chain", metavar="FILE", multiple=True, help="Certificates of its issuers; may be repeated.")
        @click.option("--p12", metavar="FILE", default="", help="A PKCS#12 file with key and certificate.")
        @click.option(
            "--signer",
            "nickname",
            metavar="NAME",
            default="",
            help=f"A key of the database (-c or -d), or TOKEN:NAME or a PKCS#11 URI; {nobody}.",
        )
        @click.option(
            "--detached/--opaque", "detached", default=True, help="multipart/signed, or application/pkcs7-mime.  [default: detached]"
        )
        @click.option("--password-file", metavar="FILE", default="", help="The pass phrase of --key.")
        @click.option("--password", metavar="X", default="", help="The same, for test data only.")
        @click.option("--p12-password-file", metavar="FILE", default="", help="The pass phrase of --p12.")
        @click.option("--p12-password", metavar="X", default="", help="The same, for test data only.")
        @click.option("--pin-file", metavar="FILE", default="", help="For a key on a token: its PIN  [default: as [passphrase] says]")
        @functools.wraps(command)
        def with_signer(*args: Any, nickname: str, **kwargs: Any) -> Any:
            names = (
                "key", "certificate", "chain", "p12", "detached", "password_file", "password", "p12_password_file", "p12_password", "pin_file"
            )  # fmt: skip
            return command(*args, signer=SignerInputs(signer=nickname, **{name: kwargs.pop(name) for name in names}), **kwargs)

        return with_signer  # type: ignore[return-value]  # click's decorators keep the callable, mypy sees the wrapper's type

    return decorate


def header_protection_option(*words: str) -> Callable[[F], F]:
    """Add `--header-protection` with these words of `ProtectionPlan.header_protection`."""
    return click.option(
        "--header-protection",
        type=click.Choice(["no", *words]),
        default="no",
        show_default=True,
        help="Cover the author's header fields, too (RFC 9788)" + ("; baseline and shy hide some of them." if "shy" in words else "."),
    )


def profile_option(command: F) -> F:
    """Add `--profile`; a name that is none is refused with those that there are."""

    def check(_: click.Context, __: click.Parameter, value: str) -> str:
        from mailsec.algorithms.profiles import PROFILES
        from mailsec.errors import UsageError

        if value not in PROFILES:
            raise UsageError(f'there is no profile "{value}"', hint=f"there are: {', '.join(PROFILES)}")
        return value

    return click.option("--profile", default="default", show_default=True, callback=check, help="The algorithms: see docs/profiles.md.")(
        command
    )
