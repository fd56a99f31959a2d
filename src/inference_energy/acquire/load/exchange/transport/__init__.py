"""Ways of sending a request: a plain HTTP parser on a socket, or aiohttp."""
