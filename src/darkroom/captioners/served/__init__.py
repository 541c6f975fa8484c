"""What captioners of the kind `server` are made of: options, the API's words, the client, the server's process."""

from urllib.parse import urlsplit


def is_loopback(url: str) -> bool:
    """Whether an address is this machine's own."""
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
