"""POP3 as state machines without sockets (RFC 1939, RFC 2449, RFC 2595, RFC 3206, RFC 5034, RFC 6856).

`server.PopServer` and `client.PopClient` are `interfaces.ProtocolCore`s; what they ask the layer above is in `questions`.
"""
