"""Who asks, and how often: the manners of a configuration, for the jobs that share a folder."""

from dataclasses import dataclass
from pathlib import Path

from darkroom.download.manners.hosts import Hosts
from darkroom.settings.download import Download, Manners, contact_of

HOSTS = Path(".snakemake/darkroom/hosts")
"""Where the jobs of a project tell each other which hosts they ask; may be removed while none runs."""


@dataclass(frozen=True)
class Crawl:
    """What a part's job needs to know of it; `folder` is shared by the jobs, None where there is one only."""

    manners: Manners
    folder: Path | None = HOSTS

    def hosts(self) -> Hosts:
        """The turns of this job."""
        return Hosts(self.manners.host_connections, self.manners.host_pause_s, self.folder)

    def contact(self) -> str | None:
        """What stands in the User-Agent. Raises ValueError where a variable of the environment is not set."""
        return None if self.manners.contact is None else contact_of(self.manners.contact)


def check_contact(manners: Manners, download: Download, is_from_web: bool) -> None:
    """Refuse to ask the web without a contact.

    Args:
        manners: of the dataset.
        download: whose `allow_networks` tell of servers of one's own, which need none.
        is_from_web: whether URLs are fetched for the dataset.

    Raises:
        ValueError: says what to write.
    """
    if not is_from_web:
        return
    if manners.contact is not None:
        try:
            contact_of(manners.contact)
        except ValueError as error:
            raise ValueError(f"manners.contact: {error}") from None
    elif not download.may_ask_loopback:
        raise ValueError(
            "manners.contact: pictures are fetched from the web, whose servers are told whom to ask about it."
            " Write an address of mail or of a web page into the dataset's file,"
            " manners: {contact: crawler@lab.example}; or {contact: $CONTACT}, and export CONTACT"
        )
