"""Postfix's socketmap and policy delegation protocols, answered with what mailsec knows of certificates and people."""
