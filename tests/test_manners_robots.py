"""robots.txt: what is asked, how often, and what each answer means for the rows of a host."""

import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from protego import Protego
from test_download_server import Handler, Server, serving, settings

from darkroom.download.manners import robots
from darkroom.download.manners.robots import DISALLOWED, USAGE, Robots, reduced
from darkroom.download.policy import parse_url
from darkroom.download.stage import download_part
from darkroom.download.status import FetchError, is_transient


def judged(text: str, path: str, obey_usage: bool = True) -> str | None:
    """The status that a robots.txt ends a fetch of `path` with, or None."""
    try:
        Robots(lambda url, number: text.encode(), obey_usage).before_request(
            parse_url(f"https://a.example{path}")
        )
    except FetchError as error:
        return error.failure.status
    return None


@pytest.mark.parametrize(
    ("text", "path", "status"),
    [
        ("", "/a.jpg", None),
        ("<html><body>no such page", "/a.jpg", None),
        ("User-agent: *\nDisallow: /", "/a.jpg", "robots_disallowed"),
        ("\ufeffUser-agent: *\nDisallow: /", "/a.jpg", "robots_disallowed"),
        ("user-agent: *\r\ndisallow: /private/\r\n", "/private/a.jpg", "robots_disallowed"),
        ("User-agent: *\nDisallow: /private/", "/a.jpg", None),
        ("User-agent: *\nDisallow:", "/a.jpg", None),
        ("User-agent: *\nDisallow: /\nAllow: /pictures/", "/pictures/a.jpg", None),
        ("User-agent: *\nDisallow: /*.jpg$", "/x/a.jpg", "robots_disallowed"),
        ("User-agent: *\nDisallow: /*.jpg$", "/x/a.jpg?v=1", None),
        ("User-agent: *\nDisallow: /ü", "/%C3%BC/a.jpg", "robots_disallowed"),
        # The group of our own name counts instead of everyone's.
        ("User-agent: *\nDisallow: /\n\nUser-agent: Darkroom\nDisallow: /x", "/a.jpg", None),
        ("User-agent: darkroom/1.0\nDisallow: /", "/a.jpg", "robots_disallowed"),
        ("User-agent: GPTBot\nDisallow: /", "/a.jpg", None),
        ("User-agent: GPTBot\nUser-agent: *\nDisallow: /", "/a.jpg", "robots_disallowed"),
        ("User-agent: *\nAllow: /\nUser-agent: GPTBot\nDisallow: /", "/a.jpg", None),
        (
            "Sitemap: https://a.example/s.xml\nUser-agent: *\nSitemap: x\nDisallow: /",
            "/a.jpg",
            "robots_disallowed",
        ),
        # Preferences on use, for all and for a path.
        ("User-agent: *\nContent-Usage: train-ai=n\nAllow: /", "/a.jpg", "opted_out"),
        ("User-agent: *\nContent-Signal: search=yes,ai-train=no\nAllow: /", "/a.jpg", "opted_out"),
        ("Content-Usage: train-ai=n\nUser-agent: *\nAllow: /", "/a.jpg", "opted_out"),
        ("User-agent: *\nContent-Usage: /art/ train-ai=n", "/art/a.jpg", "opted_out"),
        ("User-agent: *\nContent-Usage: /art/ train-ai=n", "/a.jpg", None),
        ("User-agent: *\nContent-Usage: train-ai=n\nContent-Usage: /free/ train-ai=y", "/free/a.jpg", None),
        ("User-agent: *\nContent-Usage: search=n", "/a.jpg", None),
        ("User-agent: GPTBot\nContent-Usage: train-ai=n", "/a.jpg", None),
        ("User-agent: GPTBot\nContent-Usage: train-ai=n\nUser-agent: *\nDisallow: /x", "/a.jpg", None),
        ("User-agent: GPTBot\nContent-Usage: x=y\nUser-agent: *\nDisallow: /", "/a.jpg", "robots_disallowed"),
    ],
)
def test_a_robots_txt_means_what_the_rfc_and_the_drafts_say(text: str, path: str, status: str | None) -> None:
    assert judged(text, path) == status


def test_preferences_that_are_not_obeyed_are_recorded() -> None:
    policy = Robots(lambda url, number: b"User-agent: *\nContent-Usage: train-ai=n", obey_usage=False)
    target = parse_url("https://a.example/a.jpg")
    policy.before_request(target)
    assert policy.after_headers(target, None) == (USAGE,)  # type: ignore[arg-type]


NAMES = st.sampled_from(["*", "darkroom", "Darkroom", "gptbot", "dark", "another", "", "ccbot"])
PATHS = st.sampled_from(["/", "/a", "/a/*.jpg", "/b$", "/*", "", "/a/b"])
LINES = st.one_of(
    st.builds("{}: {}".format, st.sampled_from(["User-agent", "user agent", "USERAGENT"]), NAMES),
    st.builds("{}: {}".format, st.sampled_from(["Disallow", "Allow", "disallow "]), PATHS),
    st.sampled_from(["Sitemap: x", "Crawl-delay: 3", "# text", "", "nonsense", "Content-Usage: search=y"]),
)


@given(st.lists(LINES, max_size=25), st.sampled_from(["/", "/a", "/a/x.jpg", "/b", "/b/c", "/a/b"]))
def test_reducing_a_file_to_our_groups_changes_no_answer(lines: list[str], path: str) -> None:
    text, url = "\n".join(lines), f"https://a.example{path}"
    # An exact name or everyone's: that is RFC 9309, and Protego's where no other name is part of ours.
    lines = [line for line in lines if not line.lower().endswith(": dark")]
    text = "\n".join(lines)
    expected = Protego.parse(text).can_fetch(url, "darkroom")
    assert Protego.parse(reduced(text).rules).can_fetch(url, "darkroom") is expected


@given(st.text(max_size=400))
def test_no_text_is_an_error(text: str) -> None:
    assert judged(text, "/a.jpg") in (None, "robots_disallowed", "opted_out")


def test_a_file_of_many_agents_and_many_rules_is_parsed_for_three_of_them() -> None:
    agents = "".join(f"User-agent: x{i}\n" for i in range(15_000))
    rules = "".join(f"Disallow: /{i}\n" for i in range(15_000))
    # Otherwise there would be 225 million rules.
    told = reduced(agents + "User-agent: *\n" + rules)
    assert len(Protego.parse(told.rules)._user_agents) == 2
    assert len(Protego.parse(reduced(rules + agents).rules)._user_agents) == 1
    assert judged(agents + "User-agent: *\n" + rules, "/77.jpg") == "robots_disallowed"


def fetched(
    folder: Path, server: Server, paths: list[str], **changes: object
) -> list[tuple[str, str | None, list[str] | None]]:
    folder.mkdir(exist_ok=True)
    rows = {
        "row": range(len(paths)),
        "url": [server.base + path for path in paths],
        "caption": ["x"] * len(paths),
    }
    pl.DataFrame(rows).write_parquet(folder / "urls.parquet")
    wanted = settings(**{"obey_robots_txt": True, **changes})
    files = folder / "urls.parquet", 0, len(paths), wanted, folder / "part.tar", folder / "part.parquet"
    download_part(*files)
    return pl.read_parquet(folder / "part.parquet").sort("row").select("status", "error", "opt_outs").rows()


def said(content: bytes, code: int = 200, **headers: str) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(content, code, **headers)


def test_the_file_is_asked_for_once_for_all_rows_of_a_host_and_the_row_tells_what_it_said(
    tmp_path: Path,
) -> None:
    with serving() as server:
        for number in range(12):
            server.routes[f"/a{number}.jpg"] = server.routes["/good.jpg"]
        server.routes["/robots.txt"] = said(b"User-agent: *\nDisallow: /a7")
        found = fetched(tmp_path, server, [f"/a{number}.jpg" for number in range(12)])
        assert server.requests["/robots.txt"] == 1
        assert server.requests["/a7.jpg"] == 0
    assert [status for status, *_ in found] == ["ok"] * 7 + ["robots_disallowed"] + ["ok"] * 4
    assert found[7] == ("robots_disallowed", "the host's robots.txt disallows it", [DISALLOWED])


def test_a_redirect_into_what_is_disallowed_is_not_followed(tmp_path: Path) -> None:
    with serving() as server:
        server.routes["/robots.txt"] = said(b"User-agent: *\nDisallow: /good.jpg")
        assert [row[0] for row in fetched(tmp_path, server, ["/redirect.jpg"])] == ["robots_disallowed"]
        assert server.requests["/good.jpg"] == 0


def test_a_host_is_not_asked_for_the_file_where_the_option_says_so(tmp_path: Path) -> None:
    with serving() as server:
        server.routes["/robots.txt"] = said(b"User-agent: *\nDisallow: /")
        found = fetched(tmp_path, server, ["/good.jpg"], obey_robots_txt=False)
        assert (found[0][0], server.requests["/robots.txt"]) == ("ok", 0)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (said(b"User-agent: *\nDisallow: /", 404), "ok"),
        (said(b"User-agent: *\nDisallow: /", 403), "ok"),
        (said(b"", 200), "ok"),
        (said(b"", 302, Location="/robots.txt"), "ok"),
        (said(b"", 302, Location="http://10.0.0.1/robots.txt"), "ok"),
        (said(b"", 301, Location="/elsewhere.txt"), "robots_disallowed"),
        (said(b"busy", 503), "robots_unreachable"),
        (said(b"", 500), "robots_unreachable"),
        (said(b"", 429), "robots_unreachable"),
        (lambda handler: time.sleep(2), "timeout"),
        (lambda handler: handler.connection.close(), "connection_error"),
        # The first 512,000 bytes count, whatever their end is.
        (said(b"User-agent: *\nDisallow: /\n" + b"#" * 2_000_000), "robots_disallowed"),
        (said(b"#" * 600_000 + b"\nUser-agent: *\nDisallow: /\n"), "ok"),
    ],
)
def test_what_an_answer_means_that_is_no_small_file(
    tmp_path: Path, answer: Callable[[Handler], None], status: str
) -> None:
    with serving() as server:
        server.routes["/robots.txt"] = answer
        server.routes["/elsewhere.txt"] = said(b"User-agent: *\nDisallow: /")
        ((found, error, _),) = fetched(tmp_path, server, ["/good.jpg"], timeout_s=0.5, max_bytes=400_000)
        assert found == status
        assert server.requests["/good.jpg"] == (status == "ok")
    if status not in ("ok", "robots_disallowed"):
        assert is_transient(status)
        assert error is not None
        assert error.startswith("robots.txt: ")


def test_a_file_that_could_not_be_had_is_asked_for_again_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(robots, "ASK_AGAIN_S", 0.05)
    asked: list[str] = []

    def get(url: str, number: int) -> bytes:
        asked.append(url)
        if len(asked) == 1:
            raise FetchError("http_503", "busy")
        return b""

    policy, target = Robots(get), parse_url("http://a.example:8080/a.jpg")
    with pytest.raises(FetchError, match="robots_unreachable"):
        policy.before_request(target)
    time.sleep(0.1)
    policy.before_request(target)
    policy.before_request(target)
    assert asked == ["http://a.example:8080/robots.txt"] * 2


def test_what_is_remembered_has_a_bound_and_forgotten_files_are_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(robots, "KEPT_BYTES", 300)
    monkeypatch.setattr(robots, "PARSED_CHARS", 100)
    policy = Robots(lambda url, number: b"User-agent: *\nDisallow: /x")
    for _ in range(2):
        for number in range(40):
            policy.before_request(parse_url(f"http://h{number}.example/a.jpg"))
    assert policy._kept_bytes <= 300
    assert policy._parsed_chars <= 100
    assert len(policy._known) < 10
