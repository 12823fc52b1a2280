"""Whom the server listens to, for how long, and how much of it."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from molmoact2.tokens.reading import require

SHORTEST_TOKEN = 16
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """One port, its guard, and its patience."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8000
    """0 lets the system choose."""
    token: str | None = None
    """What every client has to say; required beyond this computer."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    names: tuple[str, ...] = ()
    """Further names of this computer that clients may call it by; only asked for without a token."""
    connections_per_client: int = 64
    messages_per_s: float = 500.0
    """Of one client, over all its connections; twice as many at once."""
    first_byte_s: float = 10.0
    """For the head of a request, and for the first message of a websocket."""
    body_s: float = 30.0
    """For the body of a request, from its head to its end."""
    idle_s: float = 300.0
    """For the next message of a websocket."""
    write_s: float = 10.0
    """For a client to read on, when it has stopped reading."""
    ping_s: float = 20.0
    """Between two pings of a websocket; a client that answers none for three of them is gone."""
    shutdown_s: float = 5.0
    """For everyone to go, when the server ends."""

    def __post_init__(self) -> None:
        beyond = not is_loopback(self.host)
        require(
            self.token is not None or not beyond,
            f"Listening on {self.host} lets other computers in, so a token is needed: give --token-file, or listen on "
            "127.0.0.1.",
        )
        is_long = self.token is None or (len(self.token) >= SHORTEST_TOKEN and self.token.isascii())
        require(is_long, f"A token is {SHORTEST_TOKEN} ASCII characters or more, without spaces around it.")
        both = (self.tls_cert is None) == (self.tls_key is None)
        require(both, "TLS needs both: --tls-cert and --tls-key.")
        for path in (self.tls_cert, self.tls_key):
            require(path is None or path.is_file(), f"There is no file {path}.")

    @property
    def allowed_hosts(self) -> frozenset[str] | None:
        """Names that a request may be addressed to; None where the token keeps strangers out anyway."""
        return None if self.token is not None else frozenset({*LOCAL_NAMES, self.host, *self.names})


def is_loopback(host: str) -> bool:
    """Whether only this computer can reach the address; a name other than "localhost" might mean anything."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
