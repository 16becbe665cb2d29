"""S/MIME (RFC 8551): composes the cores below into `protect_message`, `unprotect_message` and `assess`."""
