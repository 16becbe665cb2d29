"""Key handles and the software backend; private keys as files (RFC 5958, RFC 7292), references to keys (RFC 7512)."""
