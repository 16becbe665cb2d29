"""mailsec: a mail security gateway that signs, encrypts, verifies and decrypts S/MIME."""

__version__ = "0.1.0"
