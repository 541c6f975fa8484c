"""What headers reserve: each is found, recorded, and refuses by policy."""

from email.message import Message
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_download_server import GOOD, Handler, serving, settings

from darkroom.download.manners.headers import HeaderPolicy
from darkroom.download.manners.usage import rules_out_training, usages
from darkroom.download.policy import Target
from darkroom.download.stage import download_part
from darkroom.download.status import FetchError

TARGET = Target("http", "a.example", 80, "/")


def found(*headers: tuple[str, str], **changes: object) -> tuple[bool, tuple[str, ...]]:
    """Whether these headers refuse a picture, and what is recorded."""
    message = Message()
    for name, value in headers:
        message[name] = value
    try:
        return False, tuple(HeaderPolicy(settings(**changes)).after_headers(TARGET, message))
    except FetchError as error:
        assert error.failure.status == "opted_out"
        return True, error.failure.opt_outs


@pytest.mark.parametrize(
    ("value", "refused"),
    [
        ("noai", "noai"),
        ("NoAI , nofollow", "noai"),
        ("none", "none"),
        ("noml", "noml"),
        ("all", None),
        ("otherbot: noai", None),
        ("darkroom: noai", "noai"),
        ("*: noai", "noai"),
        ("otherbot: nofollow, darkroom: noimageai", "noimageai"),
        ("darkroom: nofollow, otherbot: noai", None),
        ("max-snippet: 20, noindex", "noindex"),
        ("unavailable_after: 25 Jun 2010 15:00:00 PST", None),
    ],
)
def test_the_robots_tag_is_read_with_its_agents(value: str, refused: str | None) -> None:
    is_refused, told = found(("X-Robots-Tag", "nofollow"), ("X-Robots-Tag", value))
    assert (is_refused, told) == ((True, (f"X-Robots-Tag: {refused}",)) if refused else (False, ()))


def test_what_a_policy_lets_pass_is_recorded_all_the_same() -> None:
    headers = ("X-Robots-Tag", "noai"), ("tdm-reservation", "1"), ("Content-Usage", "train-ai=n")
    changes = {"disallowed_directives": (), "obey_tdm_reservation": False, "obey_content_usage": False}
    told = ("X-Robots-Tag: noai", "tdm-reservation: 1", "Content-Usage: train-ai=n")
    assert found(*headers, **changes) == (False, told)
    assert found(*headers) == (True, told)
    for name in changes:
        assert found(*headers, **{key: value for key, value in changes.items() if key != name}) == (
            True,
            told,
        )


@pytest.mark.parametrize(
    ("value", "is_refused"), [("1", True), (" 1 ", True), ("0", False), ("2", False), ("", False)]
)
def test_only_one_reserves_text_and_data_mining(value: str, is_refused: bool) -> None:
    assert found(("TDM-Reservation", value))[0] is is_refused


@pytest.mark.parametrize(
    ("value", "is_refused"),
    [
        ("train-ai=n", True),
        ("search=y, train-ai=n;since=2025", True),
        ("train-ai=y", False),
        ("search=n", False),
        ("train-genai=n, train-ai=y", True),
        ("train-genai=y, train-ai=n", False),
        ("bots=n", True),
        ("bots=n, train-ai=y", False),
        ("tdm=n", True),
        ('train-ai="n"', True),
        ("Train-AI=N", True),
        ("train-ai", False),
        ("train-ai=n, train-ai=y", False),
        ("train-ai=n=, ,=n", False),
        ("ai-train=no", True),
        ("", False),
    ],
)
def test_preferences_on_use_are_read_from_the_specific_to_the_general(value: str, is_refused: bool) -> None:
    assert found(("Content-Usage", value))[0] is is_refused


@given(st.text(max_size=300))
def test_no_value_of_a_header_is_an_error(value: str) -> None:
    assert rules_out_training(usages(value)) in (True, False, None)
    message = Message()
    for name in ("X-Robots-Tag", "Content-Usage", "tdm-reservation"):
        message._headers.append((name, value))  # type: ignore[attr-defined]  # as http.client keeps what it reads
    try:
        told = HeaderPolicy(settings()).after_headers(TARGET, message)
    except FetchError as error:
        told = error.failure.opt_outs
    assert all(len(text) <= 200 for text in told)


def test_the_table_tells_what_was_reserved_for_pictures_that_are_kept_and_for_those_that_are_not(
    tmp_path: Path,
) -> None:
    def reserved(handler: Handler) -> None:
        handler.answer(GOOD, X_Robots_Tag="noindex", tdm_reservation=handler.path[-1])

    with serving() as server:
        server.routes.update(dict.fromkeys(("/0", "/1"), reserved))
        paths = ["/good.jpg", "/0", "/1"]
        rows = {"row": range(3), "url": [server.base + path for path in paths], "caption": ["x"] * 3}
        pl.DataFrame(rows).write_parquet(tmp_path / "urls.parquet")
        wanted = settings(disallowed_directives=("noai",))
        tar, table = tmp_path / "part.tar", tmp_path / "part.parquet"
        download_part(tmp_path / "urls.parquet", 0, 3, wanted, tar, table)
    made = pl.read_parquet(table).sort("row").select("status", "opt_outs").rows()
    noindex = "X-Robots-Tag: noindex"
    assert made == [("ok", None), ("ok", [noindex]), ("opted_out", [noindex, "tdm-reservation: 1"])]
