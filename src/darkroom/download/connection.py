"""A TCP or TLS connection to a checked address, every wait of which ends by one deadline."""

import concurrent.futures
import contextlib
import io
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from darkroom.download.addresses import AddressPolicy
from darkroom.download.policy import Target
from darkroom.download.status import BLOCKED_ADDRESS, CONNECTION_ERROR, TIMEOUT, TOO_MANY_BYTES, FetchError

WATCH_S = 0.2
"""How often connections are looked at whose time may be up."""

_SocketAddress = tuple[Any, ...]
Reader: TypeAlias = "io.BufferedReader[Any]"


def broken() -> FetchError:
    """A reset, a broken pipe and an early end are one failure: which one shows up is a race."""
    return FetchError(CONNECTION_ERROR, "the connection broke before the whole answer had arrived")


class Deadline:
    """The time that one fetch may take, silence by silence and in all (seconds)."""

    def __init__(self, silence_s: float, total_s: float) -> None:
        self._silence_s = silence_s
        self._total_s = total_s
        self._end = time.monotonic() + total_s
        self._paused_at: float | None = None

    def left(self) -> float:
        """Seconds until the end, negative after it."""
        return self._end - (self._paused_at or time.monotonic())

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """A block whose time is ours and not the server's."""
        self._paused_at = time.monotonic()
        try:
            yield
        finally:
            self._end += time.monotonic() - self._paused_at
            self._paused_at = None

    def wait(self) -> float:
        """How long the next wait may last.

        Raises:
            FetchError: timeout, final, when no time is left.
        """
        left = self.left()
        if left <= 0:
            raise self.passed()
        return min(self._silence_s, left)

    def passed(self) -> FetchError:
        """The failure for a wait that was too long; final when the whole time is used up."""
        # One sentence for both limits: near the end it is chance which of them comes first.
        return FetchError(
            TIMEOUT,
            f"no whole answer within timeout_s = {self._silence_s:g} (silence) "
            f"and total_timeout_s = {self._total_s:g}",
            final=self.left() <= 0,
        )


class Watchdog:
    """Shuts connections whose time is up, in a thread of its own.

    Timeouts of a socket are asked between two waits. A server that always has something to say, such as one TLS
    message after another, leaves none.
    """

    def __init__(self) -> None:
        self._watched: dict[socket.socket, Deadline] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def watch(self, sock: socket.socket, deadline: Deadline) -> None:
        """Shut `sock` when `deadline` is over, until it is forgotten."""
        self._watched[sock] = deadline

    def forget(self, sock: socket.socket) -> None:
        """Watch `sock` no longer."""
        self._watched.pop(sock, None)

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(WATCH_S):
            for sock, deadline in list(self._watched.items()):
                if deadline.left() <= 0:
                    with contextlib.suppress(OSError):
                        # The plain socket's method: that of TLS would also forget that there is encryption.
                        socket.socket.shutdown(sock, socket.SHUT_RDWR)


class Channel:
    """A connected socket whose every read and write respects the deadline, and which reads only so many bytes.

    It has the one method that `http.client.HTTPResponse` asks of a socket, `makefile`.
    """

    def __init__(self, sock: socket.socket, deadline: Deadline, watchdog: Watchdog, max_bytes: int) -> None:
        self._sock = sock
        self._deadline = deadline
        self._watchdog = watchdog
        self._max_bytes = self._left_bytes = max_bytes
        self.reader: Reader = io.BufferedReader(_Raw(self))

    def send(self, content: bytes) -> None:
        """Send all of `content`."""
        try:
            self._sock.settimeout(self._deadline.wait())
            self._sock.sendall(content)
        except OSError as error:
            raise self._classed(error) from error

    def read_into(self, buffer: Any) -> int:
        """Fill part of `buffer`; 0 at the end of the stream."""
        try:
            self._sock.settimeout(self._deadline.wait())
            number = self._sock.recv_into(buffer)
        except OSError as error:
            raise self._classed(error) from error
        self._left_bytes -= number
        if self._left_bytes < 0:
            message = f"the whole answer, headers and all, is larger than {self._max_bytes} bytes"
            raise FetchError(TOO_MANY_BYTES, message)
        if not number and self._deadline.left() <= 0:
            raise self._deadline.passed()
        return number

    def makefile(self, mode: str) -> Reader:
        """The buffered reader over the channel; closing it leaves the channel open."""
        assert mode == "rb"
        return self.reader

    def close(self) -> None:
        """Close the socket."""
        self._watchdog.forget(self._sock)
        self._sock.close()

    def _classed(self, error: OSError) -> FetchError:
        is_over = isinstance(error, TimeoutError) or self._deadline.left() <= 0
        return self._deadline.passed() if is_over else broken()


class _Raw(io.RawIOBase):
    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._channel.read_into(buffer)


class Connector:
    """Opens channels: resolves a host, checks its addresses, connects to the one that was checked.

    Args:
        addresses: which addresses may be connected to.
        connect_to: "host:port" -> "ip:port"; as curl's --connect-to, but towards numeric addresses.
        num_threads: concurrent look-ups; a look-up cannot be interrupted, only abandoned.
        max_answer_bytes: longest answer of a server, with its headers and all that surrounds its body.

    Raises:
        ValueError: an entry of `connect_to` is malformed.
    """

    def __init__(
        self, addresses: AddressPolicy, connect_to: Mapping[str, str], num_threads: int, max_answer_bytes: int
    ) -> None:
        self._addresses = addresses
        self._max_answer_bytes = max_answer_bytes
        self._watchdog = Watchdog()
        self._connect_to = {_endpoint(key): _numeric_endpoint(value) for key, value in connect_to.items()}
        self._tls = ssl.create_default_context()
        self._resolver = concurrent.futures.ThreadPoolExecutor(num_threads, "resolver")

    def connect(self, target: Target, deadline: Deadline) -> Channel:
        """A channel to `target`, after the TLS handshake for https.

        Raises:
            FetchError: blocked_address, timeout or connection_error.
        """
        host, port = self._connect_to.get((target.host, target.port), (target.host, target.port))
        found = self._resolve(host, port, deadline)
        allowed = [(family, address) for family, address in found if self._addresses.allows(address[0])]
        if not allowed:
            address = min(str(address[0]) for _, address in found)
            raise FetchError(BLOCKED_ADDRESS, f"{target.host} is at {address}, which may not be contacted")
        failure: FetchError | None = None
        for family, endpoint in allowed:
            try:
                return self._open(target, family, endpoint, deadline)
            except FetchError as error:
                if not error.retry:
                    raise
                failure = error
        assert failure is not None
        raise failure

    def close(self) -> None:
        """Abandon look-ups that are still under way."""
        self._watchdog.stop()
        self._resolver.shutdown(wait=False, cancel_futures=True)

    def _resolve(self, host: str, port: int, deadline: Deadline) -> list[tuple[int, _SocketAddress]]:
        lookup = self._resolver.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            # Silence has no meaning for a look-up, so only the whole time bounds it.
            answers = lookup.result(timeout=max(deadline.left(), 0.0))
        except TimeoutError as error:
            raise deadline.passed() from error
        except socket.gaierror as error:
            again = error.errno == socket.EAI_AGAIN
            raise FetchError(CONNECTION_ERROR, "the host name does not resolve", final=not again) from error
        except UnicodeError as error:
            raise FetchError(CONNECTION_ERROR, "the host name does not resolve", final=True) from error
        return [(family, address) for family, _, _, _, address in answers]

    def _open(self, target: Target, family: int, address: _SocketAddress, deadline: Deadline) -> Channel:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(deadline.wait())
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if target.scheme == "https":
                sock = self._tls.wrap_socket(sock, server_hostname=target.host, do_handshake_on_connect=False)
                sock.settimeout(deadline.wait())
                self._watchdog.watch(sock, deadline)
                sock.do_handshake()
        except (OSError, FetchError) as error:
            self._watchdog.forget(sock)
            sock.close()
            if isinstance(error, FetchError):
                raise
            raise _connect_failure(error, deadline) from error
        self._watchdog.watch(sock, deadline)
        return Channel(sock, deadline, self._watchdog, self._max_answer_bytes)


def _connect_failure(error: OSError, deadline: Deadline) -> FetchError:
    if isinstance(error, TimeoutError) or deadline.left() <= 0:
        return deadline.passed()
    if isinstance(error, ssl.SSLCertVerificationError):
        return FetchError(CONNECTION_ERROR, "the server's certificate is not valid for its host", final=True)
    if isinstance(error, ssl.SSLError):
        return FetchError(CONNECTION_ERROR, "the TLS handshake failed")
    if isinstance(error, ConnectionRefusedError):
        return FetchError(CONNECTION_ERROR, "the server refused the connection")
    if isinstance(error, ConnectionError):
        return broken()
    return FetchError(CONNECTION_ERROR, "the server cannot be reached")


def _endpoint(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"connect_to: {text!r} should be host:port, such as images.example:80")
    return host.strip("[]").lower(), int(port)


def _numeric_endpoint(text: str) -> tuple[str, int]:
    host, port = _endpoint(text)
    try:
        return str(ipaddress.ip_address(host)), port
    except ValueError as error:
        raise ValueError(f"connect_to: {text!r} should be address:port, such as 127.0.0.1:8080") from error
