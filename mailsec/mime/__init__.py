"""Messages as octets with an index over them (RFC 5322, RFC 2045 to 2047, RFC 2231): read, spliced, never parsed and printed again."""
