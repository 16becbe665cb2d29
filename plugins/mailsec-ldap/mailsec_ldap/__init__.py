"""LDAP servers as directories of certificates and recipients, and as sources of revocation lists (RFC 4511, RFC 4523)."""
