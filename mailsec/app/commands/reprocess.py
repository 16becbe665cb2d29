"""`mailsec reprocess FILE --to ADDRESS`: a message takes the inbound path of the running gateway once more, for one address of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mailsec.app.options import config_option
from mailsec.app.output import Output, json_option
from mailsec.errors import AddressError, ConfigurationError, Refused, Unavailable, UsageError

if TYPE_CHECKING:
    from mailsec.errors import Reply
    from mailsec.interfaces import Runtime
    from mailsec.model.address import Address
    from mailsec.model.octets import Segments
    from mailsec.model.settings import GatewaySettings

__all__ = ["reprocess"]


@json_option
@click.command()
@click.argument("file", metavar="FILE")
@click.option("--to", "recipient", metavar="ADDRESS", required=True, help="Whose keys open it, and who gets it: an address in our domains.")
@config_option
@click.pass_obj
def reprocess(output: Output, *, file: str, recipient: str, configuration: str) -> int:
    """Have the message in FILE opened and judged again, as if it came in now, and delivered to ADDRESS. The gateway must be running."""
    from mailsec.app.config import gateway_settings, load_configuration
    from mailsec.app.messages import read_message
    from mailsec.app.online import run_online
    from mailsec.gateway.admission import Domains
    from mailsec.model.address import Address
    from mailsec.model.octets import Segments

    try:
        address = Address.parse(recipient)
    except AddressError as error:
        raise UsageError(error.message, hint=error.hint) from error
    settings = gateway_settings(load_configuration(configuration))
    if address not in Domains(settings.domains):
        raise Refused(f"{address} is not in our domains", hint=f"they are {', '.join(settings.domains)}", stage="reprocess")
    message = read_message(file, "smime").message
    target = _listener(settings)

    async def send(runtime: Runtime) -> Reply:
        return await _send(runtime, target, settings, address, Segments.of(message.octets))

    reply = run_online(send, settings.revocation, typed=True)
    if not reply.positive:
        kind = Unavailable if reply.temporary else Refused
        raise kind(f"the gateway says {reply.code} {reply.enhanced} {reply.text}".strip(), stage="reprocess")
    output.result({"recipient": str(address), "listener": target, "reply": reply.text}, f"for {address}: {reply.text}")
    return 0


def _listener(settings: GatewaySettings) -> str:
    """Where mail from outside comes in, as this machine reaches it."""
    for listener in settings.listeners:
        if listener.origin.value == "internet" and listener.protocol == "smtp" and listener.tls != "implicit":
            address = listener.address
            return address.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:")
    raise ConfigurationError("there is no listener that it could come in by", hint='one with origin = "internet" and without implicit TLS')


async def _send(runtime: Runtime, target: str, settings: GatewaySettings, recipient: Address, octets: Segments) -> Reply:
    from mailsec.model.session import Recipient
    from mailsec.wire.smtp.client import ClientSettings, SmtpClient
    from mailsec.wire.smtp.questions import Ended, NextMessage, OutgoingMessage, Quit

    # RFC 5321 §4.5.5: the null path, so that nobody outside hears of it.
    message = OutgoingMessage(None, (Recipient(recipient),), octets, eight_bit=True)
    done = runtime.signal()
    replies: list[Reply] = []

    def ask(question: object) -> Any:
        if isinstance(question, NextMessage):
            if question.result is None:
                return message
            replies.extend(question.result.replies)
            return Quit()
        if isinstance(question, Ended):
            if question.result is not None:
                replies.extend(question.result.replies)
            done.fire(question.error)
        return None

    core = SmtpClient(ClientSettings(settings.hostname, tls="opportunistic", limits=settings.limits))
    try:
        await runtime.connect(target, core, ask, timeout=settings.relay.connect_timeout)
    except Unavailable as error:
        raise Unavailable(error.message, hint="is mailsec running?", stage="reprocess") from error
    failure = await done.wait()
    if replies:
        return replies[0]
    raise failure or Unavailable("the gateway took nothing", stage="reprocess")
