"""What the POP3 server says (RFC 1939; response codes: RFC 2449 §8, RFC 3206, RFC 5034).

The texts are for strangers: none of them names an address, a path or a reason from inside.
"""

from __future__ import annotations

from mailsec.wire.pop3.questions import Response

OK = Response(True)
NAME_OK = Response(True, "send PASS")
LOGGED_IN = Response(True, "logged in")
GO_TLS = Response(True, "begin TLS negotiation")
UTF8_OK = Response(True, "UTF-8 enabled")
CAPABILITIES = Response(True, "capability list follows")
GOODBYE = Response(True, "goodbye")
UNKNOWN = Response(False, "command not known")
NOT_OFFERED = Response(False, "command not offered")
BAD_SEQUENCE = Response(False, "not now")
NO_ARGUMENT = Response(False, "this command has no argument")
BAD_ARGUMENT = Response(False, "bad argument")
BAD_LINE = Response(False, "bare CR or NUL in a command")
BARE_LF = Response(False, "lines end in CR LF")
LONG_LINE = Response(False, "line too long")
TLS_FIRST = Response(False, "must issue a STLS command first")
INJECTION = Response(False, "octets behind STLS")
AUTH_UNKNOWN = Response(False, "mechanism not known")
AUTH_CANCELLED = Response(False, "authentication cancelled")
# RFC 3206 §4: the credentials themselves are wrong.
AUTH_FAILED = Response(False, "authentication failed", "AUTH")
TOO_MANY_ERRORS = Response(False, "too many errors")
STOPPING = Response(False, "shutting down, try again later", "SYS/TEMP")
NO_ANSWER = Response(False, "local error, try again later", "SYS/TEMP")
UNSENDABLE = Response(False, "this message cannot be sent", "SYS/PERM")
