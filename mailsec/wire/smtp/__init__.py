"""SMTP and LMTP as state machines without sockets (RFC 5321, RFC 2033, RFC 3207, RFC 4954).

`server.SmtpServer` and `client.SmtpClient` are `interfaces.ProtocolCore`s; what they ask the layer above is in `questions`.
"""
