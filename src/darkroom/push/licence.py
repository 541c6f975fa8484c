"""What a model card says of the model's licence, in the keys that the Hugging Face Hub reads."""

import re

_ID = re.compile(r"[a-z0-9][a-z0-9.+-]*")
OTHER = "other"


def licence_head(licence: str, name: str, link: str, is_private: bool) -> dict[str, str]:
    """The keys of the card's head; {} where a private repository says none.

    Args:
        licence: the Hub's id of it, such as apache-2.0; `other` is one that has none.
        name: what one without an id is called.
        link: where its text is.

    Raises:
        ValueError: what is there is no licence, or a public repository has none.
    """
    if not licence and not (name or link):
        if is_private:
            return {}
        raise ValueError(
            "--license: missing, and without one nobody may use what is public; give its id on the Hub, such as"
            " apache-2.0, or `other` with --license-name and --license-link"
        )
    if (name or link) and licence != OTHER:
        raise ValueError("--license-name and --license-link go with --license other")
    if licence == OTHER and not (name and link):
        raise ValueError("--license other: needs --license-name and --license-link, as its readers do")
    if not _ID.fullmatch(licence):
        raise ValueError(f"--license {licence}: is no id of the Hub's, which are written as apache-2.0")
    more = {"license_name": name, "license_link": link} if licence == OTHER else {}
    return {"license": licence, **more}
