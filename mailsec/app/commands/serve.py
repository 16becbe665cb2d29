"""`mailsec serve`: the gateway itself, a supervisor and its workers."""

from __future__ import annotations

import click

from mailsec.app.options import config_option
from mailsec.app.output import Output

__all__ = ["serve"]


@click.command()
@config_option
@click.pass_obj
def serve(output: Output, configuration: str) -> int:
    """Run the gateway until it is told to stop (SIGTERM finishes what has begun; a second one ends it at once)."""
    from mailsec.app.serving import run_gateway

    return run_gateway(configuration, output)
