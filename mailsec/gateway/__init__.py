"""What happens to a message: admission, the outbound and the inbound path, results, bounces. Plain `async def`; no Twisted."""
