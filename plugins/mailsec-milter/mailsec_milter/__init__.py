"""The milter protocol for mailsec: sign, encrypt and verify what passes through Postfix or Sendmail, without standing in its way."""
