"""`mailsec check` of a configuration that is to replace a running one, in a process of its own. Run as `python -m mailsec.app.reload_check`.

Plugins are imported here, and pass phrases asked for where `[passphrase]` says: neither may happen in the supervisor. It is told
everything by its standard input, and answers with one JSON object on descriptor 3: {"errors": […]} or what the supervisor needs to know.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from datetime import UTC, datetime
from typing import Any, Final

from mailsec.app.hardening import harden_process

__all__ = ["ANSWER", "main"]

ANSWER: Final = 3


def main() -> None:
    """Check, answer, end."""
    harden_process()
    # Nobody is there to type anything.
    question = json.loads(sys.stdin.buffer.read())
    sys.stdin = open(os.devnull)  # noqa: SIM115, PTH123 - for as long as the process lives
    answer = _check(question["path"], question["text"], question["location"], base64.b64decode(question["data_key"]))
    octets = json.dumps(answer).encode("ascii")
    while octets:
        octets = octets[os.write(ANSWER, octets) :]


def _check(path: str, text: str, location: str, data_key: bytes) -> dict[str, Any]:
    from mailsec.app.config.problems import ConfigurationErrors
    from mailsec.app.config.server_certificates import doubts
    from mailsec.app.modules import modules_in_use
    from mailsec.app.opening import open_configuration
    from mailsec.errors import MailsecError

    try:
        configuration, database = open_configuration(path, consequence="nothing was changed", text=text, known=(location, data_key))
    except ConfigurationErrors as error:
        return {"message": error.message, "errors": [{"message": one.message, "hint": one.hint} for one in error.problems]}
    except MailsecError as error:
        return {"message": error.message, "errors": [{"message": error.message, "hint": error.hint}]}
    with database:
        doubtful = doubts(configuration, database, datetime.now(UTC))
        return {
            "errors": [],
            "data_key": base64.b64encode(database.data_key).decode("ascii"),
            "modules": [module.model_dump() for module in modules_in_use(configuration.modules, database)],
            "doubts": list(dict.fromkeys((one.message, one.hint) for one in doubtful)),
        }


if __name__ == "__main__":
    main()
