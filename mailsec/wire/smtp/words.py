"""What the SMTP server says: reply codes, enhanced status codes (RFC 3463, RFC 5248) and texts.

The texts are for strangers: none of them names an address, a path or a reason from inside.
"""

from __future__ import annotations

from mailsec.errors import Reply

OK = Reply(250, "2.0.0", "ok")
SENDER_OK = Reply(250, "2.1.0", "ok")
RECIPIENT_OK = Reply(250, "2.1.5", "ok")
START_MAIL = Reply(354, "", "end data with <CR><LF>.<CR><LF>")
HELP = Reply(214, "2.0.0", "see RFC 5321")
CANNOT_VRFY = Reply(252, "2.1.5", "send some mail, it may be delivered")
UNKNOWN = Reply(500, "5.5.1", "command not known")
NOT_OFFERED = Reply(502, "5.5.1", "command not offered")
BAD_SEQUENCE = Reply(503, "5.5.1", "bad sequence of commands")
NO_RECIPIENTS = Reply(554, "5.5.1", "no valid recipients")
NO_ARGUMENT = Reply(501, "5.5.4", "this command has no argument")
NAME_NEEDED = Reply(501, "5.5.4", "say who you are: EHLO name")
BAD_LINE = Reply(500, "5.5.2", "bare CR or NUL in a command")
BARE_LF = Reply(500, "5.5.2", "lines end in CR LF")
LONG_LINE = Reply(500, "5.5.2", "line too long")
NOT_IN_FRONT = Reply(550, "5.7.0", "you may not speak for others")
GO_TLS = Reply(220, "2.0.0", "ready to start TLS")
TLS_FIRST = Reply(530, "5.7.0", "must issue a STARTTLS command first")
AUTH_FIRST = Reply(530, "5.7.0", "authentication required")
AUTH_NEEDS_TLS = Reply(538, "5.7.11", "encryption required for authentication")
AUTH_UNKNOWN = Reply(504, "5.5.4", "mechanism not known")
AUTH_OK = Reply(235, "2.7.0", "authentication succeeded")
AUTH_UNREADABLE = Reply(501, "5.5.2", "the response cannot be read")
AUTH_UNAVAILABLE = Reply(454, "4.7.0", "temporary authentication failure")
AUTH_FAILED = Reply(535, "5.7.8", "authentication credentials invalid")
AUTH_CANCELLED = Reply(501, "5.7.0", "authentication cancelled")
INJECTION = Reply(554, "5.5.0", "octets behind STARTTLS")
BARE = Reply(554, "5.6.0", "message holds a bare CR or LF (RFC 5321 section 2.3.8)")
NUL = Reply(554, "5.6.0", "message holds a NUL")
TOO_LARGE = Reply(552, "5.3.4", "message is larger than is accepted here")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "too many recipients")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "too many errors")
TOO_MANY_MESSAGES = Reply(421, "4.7.0", "too many messages on one connection")
TIMEOUT = Reply(421, "4.4.2", "timeout")
STOPPING = Reply(421, "4.3.2", "shutting down, try again later")

NO_ANSWER = Reply(451, "4.3.0", "local error, try again later")
