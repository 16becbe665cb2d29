"""`mailsec smime decrypt` and `inspect`: what is inside of a message in a file, taken out or shown layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mailsec.app.opening_keys import KeyInputs, key_options
from mailsec.app.options import DatabaseChoice, database_options
from mailsec.app.output import Output, json_option
from mailsec.app.path_inputs import PathInputs, crl_option, path_options

if TYPE_CHECKING:
    from mailsec.app.judgement import Judged

__all__ = ["decrypt", "inspect"]

_FORMS = click.Choice(["auto", "smime", "eml", "cms-der", "cms-pem"])


@json_option
@click.command()
@click.argument("file", metavar="FILE")
@click.option("--form", type=_FORMS, default="auto", show_default=True, help="What FILE is.")
@click.option("--allow-legacy", is_flag=True, help="Open triple DES and RC2, too.")
@click.option("-o", "--output", "target", metavar="FILE", default="-", help="Where the clear message goes  [default: standard output]")
@key_options
@database_options
@click.pass_obj
def decrypt(output: Output, *, file: str, form: str, allow_legacy: bool, target: str, opening: KeyInputs, database: DatabaseChoice) -> int:
    """Open the encrypted message in FILE, and write the whole clear message. The exit code is 0 if all was decrypted.

    A bare CMS object gives its content. Signatures within it are kept, and shown; "smime verify" judges them.
    """
    import hashlib

    from mailsec.app.files import write_file
    from mailsec.app.judgement import judged, octets_in
    from mailsec.app.messages import read_message

    given = read_message(file, "smime" if form == "eml" else form)
    with judged(output, given, PathInputs(allow_legacy=allow_legacy, database=database), opening.read(output, database)) as found:
        plaintext = octets_in(found.result.plaintext)
        clear = plaintext if given.bare else octets_in(found.result.clear)
        decrypted = found.decrypted is True
        asked = not (output.json and target == "-")
        done = decrypted and (clear is not None or not asked)
        written = done and asked
        if written and clear is not None:
            write_file(target, clear, private=True)
    value: dict[str, Any] = {
        **found.value,
        "decrypted": decrypted,
        "plaintext_b64": _base64(plaintext) if target == "-" else None,
        "plaintext_sha256": None if plaintext is None else hashlib.sha256(plaintext).hexdigest(),
        "output": target if written and target != "-" else None,
    }
    if output.json or (target != "-" and written):
        output.result(value, lambda: _tell(output, found, file))
    elif not done:
        for reason in found.verdict.reasons or ():
            output.error(f"{reason.code}: {reason.message}", reason.hint)
        if found.decrypted is None:
            output.error("nothing in it is encrypted", '"mailsec smime inspect" shows what it is')
    return 0 if done else 1


@json_option
@click.command()
@click.argument("file", metavar="FILE")
@click.option("--form", type=_FORMS, default="auto", show_default=True, help="What FILE is.")
@key_options
@path_options
@crl_option
@click.pass_obj
def inspect(output: Output, *, file: str, form: str, opening: KeyInputs, paths: PathInputs) -> int:
    """Show the layers of the message in FILE: types, algorithms, signers, recipients, sizes. Keys open what is encrypted."""
    from mailsec.app.judgement import judged
    from mailsec.app.messages import read_message
    from mailsec.cms.structure import describe
    from mailsec.errors import MailsecError

    given = read_message(file, "smime" if form == "eml" else form)
    with judged(output, given, paths, opening.read(output, paths.database)) as found:
        for shown, layer in zip(found.value["layers"], found.result.layers, strict=True):
            shown["covers_all"] = layer.covers_all
            shown["detached"] = layer.detached
            try:
                shown["structure"] = None if layer.cms is None else describe(layer.cms)
            except MailsecError:
                shown["structure"] = None
        value = {**found.value, "decrypted": found.decrypted}
    output.result(value, lambda: _tell(output, found, file))
    return 0 if found.result.layers else 1


def _base64(data: bytes | None) -> str | None:
    import base64

    return None if data is None else base64.b64encode(data).decode("ascii")


def _tell(output: Output, found: Judged, file: str) -> None:
    from mailsec.app.telling import tell_verdict

    for number, layer in enumerate(found.value["layers"], 1):
        structure = layer.get("structure") or {}
        lines = [("layer", f"{number}: {layer['type']}")]
        if layer.get("algorithm"):
            lines.append(("cipher", str(layer["algorithm"])))
        if "opened" in layer:
            lines.append(("opened", "yes" if layer["opened"] else "no"))
        for recipient in structure.get("recipients", ()):
            lines.append(("for", f"{recipient['recipient']} ({recipient['kind']}, {recipient['algorithm']})"))
        for signer in structure.get("signers", ()):
            lines.append(("signer", f"{signer.get('signer', signer.get('problem'))}"))
        content = structure.get("content") or {}
        if content.get("octets") is not None:
            lines.append(("content", f"{content['octets']} octets"))
        output.table(["", ""], lines, headings=False)
        output.text("")
    tell_verdict(output, found.verdict, "" if file == "-" else Path(file).name)
