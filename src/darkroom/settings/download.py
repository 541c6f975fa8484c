"""How pictures are fetched and decoded."""

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from darkroom.settings.base import Section
from darkroom.settings.paths import expanded

# Of the file beside a picture that holds its caption.
CAPTION_ENDINGS = (".txt", ".caption")
# What stands in a comment of the User-Agent, and so has neither spaces nor parentheses.
_WORD = r"(?:(?![()<>@;:/\\])[!-~])+"
_CONTACT = re.compile(rf"https?://(?:(?![()<>;\\])[!-~])+|{_WORD}@{_WORD}\.[a-zA-Z0-9-]+")


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a network such as 127.0.0.0/8 ({error})") from error
    return text


Network = Annotated[str, AfterValidator(_network)]


class Download(Section):
    """Fetching and decoding, with every bound."""

    allow_networks: tuple[Network, ...] = Field(
        (), description="networks (CIDR) allowed besides the public internet, e.g. 127.0.0.0/8"
    )
    deny_networks: tuple[Network, ...] = Field(
        (),
        description="networks (CIDR) refused besides those that are not public, whatever allow_networks says",
    )
    num_threads: int = Field(32, ge=1, description="concurrent fetches of one part")
    num_retries: int = Field(1, ge=0, description="more tries after a transient failure")
    timeout_s: float = Field(10.0, gt=0, description="longest silence of a server, seconds")
    total_timeout_s: float = Field(60.0, gt=0, description="longest fetch of one URL, seconds")
    max_bytes: int = Field(50_000_000, ge=1, description="longest response body, bytes")
    max_pixels: int = Field(40_000_000, ge=1, description="width x height allowed before decoding")
    max_decode_s: float = Field(
        20.0, gt=0, description="longest decoding of one picture, seconds of a processor"
    )
    max_side_px: int = Field(1024, ge=16, description="pictures with a longer side are reduced")
    jpeg_quality: int = Field(95, ge=1, le=100, description="quality of the stored JPEG")
    disallowed_directives: tuple[str, ...] = Field(
        ("noai", "noimageai", "noindex", "noimageindex", "noml"),
        description="X-Robots-Tag directives that a picture is refused for",
    )
    obey_robots_txt: bool = Field(
        True,
        description="whether a host's robots.txt is asked for first, and what it disallows is not fetched",
    )
    obey_tdm_reservation: bool = Field(
        True, description="whether a picture with the header tdm-reservation: 1 is refused"
    )
    obey_content_usage: bool = Field(
        True,
        description="whether a picture is refused whose server's preferences (Content-Usage) rule out training",
    )

    obey_marks: bool = Field(
        True,
        description="whether a picture is refused whose file has a mark against training (PLUS and IPTC, C2PA)",
    )

    @property
    def may_ask_loopback(self) -> bool:
        """Whether this machine's own servers may be asked, as in a test."""
        return any(ipaddress.ip_network(text).is_loopback for text in self.allow_networks)


def contact_of(text: str) -> str:
    """The contact that `text` means; one that is `$NAME` is that variable's value.

    Raises:
        ValueError: the variable is not set, or it is neither an address of mail nor of the web.
    """
    contact = expanded(text)
    if not _CONTACT.fullmatch(contact):
        raise ValueError(
            f"{contact!r} is no contact; it should be an address of mail, such as crawler@lab.example, or of a web"
            " page, such as https://lab.example/crawler"
        )
    return contact


class Manners(Section):
    """How hosts of the web are asked. None of it changes what a download writes, so none of it is recorded."""

    contact: str | None = Field(
        None,
        description="address of mail or of a web page, for those whose servers are asked; $NAME is that variable"
        " of the environment. It is sent in the User-Agent, and needed where pictures come from the web",
    )
    host_connections: int = Field(
        2, ge=1, description="connections to one host at once, of all jobs of the project together"
    )
    host_pause_s: float = Field(
        0.5, ge=0, le=60, description="pause between the beginnings of two requests to one host, seconds"
    )

    @field_validator("contact")
    @classmethod
    def _is_a_contact(cls, contact: str | None) -> str | None:
        if contact is not None and not contact.startswith("$"):
            contact_of(contact)
        return contact
