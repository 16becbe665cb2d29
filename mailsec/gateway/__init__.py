"""What happens to a message: admission, the outbound and the inbound path, one commit. Plain `async def`; no Twisted, no database."""
