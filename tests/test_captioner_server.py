"""The captioner that asks a server: a real one on loopback, which delays, lies, fails and is away."""

import json
import logging
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from captioner_fixtures import KEY, server, short_pauses  # noqa: F401 - fixtures
from hypothesis import given, settings
from hypothesis import strategies as st
from played_captioner import (
    MODEL,
    Request,
    Server,
    caption_of,
    captioned,
    expected,
    make_pictures,
    section,
)

from darkroom.captioners.scratch import scratch_folder
from darkroom.captioners.served import chat, client
from darkroom.captioners.server import SPEC
from darkroom.store import sha256_file

TESTS = Path(__file__).parent


# What is asked, and what comes of it


def test_every_picture_gets_its_own_captions_in_the_tables_order_whatever_the_delays(
    tmp_path: Path, server: Server
) -> None:
    part, jpegs = make_pictures(tmp_path, 40)

    def late(request: Request) -> None:
        time.sleep(random.random() * 0.03)
        request.answer()

    server.reply, server.together = late, 2
    table, counts = captioned(part, section(server.url), tmp_path / "many.parquet")
    assert table["caption_long"].to_list() == expected(jpegs, "long")
    assert table["caption_short"].to_list() == expected(jpegs, "short")
    assert server.asked.total() == 80 and set(server.asked.values()) == {1}
    assert 1 < server.most <= 8
    one = section(server.url, {"concurrency": 1})
    captioned(part, one, tmp_path / "one.parquet")
    assert sha256_file(tmp_path / "many.parquet") == sha256_file(tmp_path / "one.parquet")
    assert counts["captioned"] == 40 and not counts["failed"]
    assert counts["prompt_tokens"] == 8000 and counts["answered_by"] == {MODEL: 80}
    assert counts["completion_tokens"] == counts["long_tokens"] + counts["short_tokens"]
    assert not scratch_folder(tmp_path / "many.parquet").exists()


def test_a_request_says_what_the_configuration_says_and_no_more(tmp_path: Path, server: Server) -> None:
    part, jpegs = make_pictures(tmp_path, 1, side_px=64)
    captioned(part, section(server.url), tmp_path / "a.parquet")
    image = {"type": "image_url", "image_url": server.bodies[0]["messages"][0]["content"][0]["image_url"]}
    content = [image, {"type": "text", "text": "long"}]
    assert server.bodies[0] == {
        "model": "m", "max_tokens": 96, "temperature": 0.0, "seed": 0,
        "messages": [{"role": "user", "content": content}],
    }  # fmt: skip
    values = {"limit_name": "max_completion_tokens", "temperature": None, "seed": None, "max_new_tokens": 7}
    other = section(server.url, detail="low", max_side_px=32, **values)
    server.bodies.clear()
    captioned(part, other, tmp_path / "b.parquet")
    assert server.bodies[1].keys() == {"model", "max_completion_tokens", "messages"}
    assert server.bodies[1]["max_completion_tokens"] == 7
    sent = server.bodies[1]["messages"][0]["content"][0]["image_url"]
    assert sent["detail"] == "low"
    # The stored picture as it is, or a smaller one.
    assert caption_of(jpegs[0], "long") in server.asked and len(sent["url"]) < len(image["image_url"]["url"])
    assert server.keys == {None}


def test_provenance_is_the_model_that_answered_and_where_and_how_it_was_asked(
    tmp_path: Path, server: Server
) -> None:
    part, _ = make_pictures(tmp_path, 3)
    price = {"price_per_million_tokens": {"input": 2.5, "output": 10}}
    table, counts = captioned(part, section(server.url, price), tmp_path / "out.parquet")
    row = table.row(0, named=True)
    assert (row["model"], row["model_path"], row["model_sha256"]) == (MODEL, server.url, None)
    assert row["library"] == f"httpx {httpx.__version__}"
    decoding = {"model": "m", "seed": 0, "limit_name": "max_tokens", "detail": None, "max_side_px": 1024}
    each = {"max_new_tokens": 96, "strip_prefixes": [], "temperature": 0.0, "top_p": 1.0}
    assert json.loads(row["decoding"]) == {**decoding, "captions": {"long": each, "short": each}}
    cost = (counts["prompt_tokens"] * 2.5 + counts["completion_tokens"] * 10) / 1e6
    assert counts["cost"] == pytest.approx(cost, abs=1e-6) and cost > 0


# Servers that lie, stall and fail


def _stall(request: Request) -> None:
    time.sleep(1.5)


def _drip(request: Request) -> None:
    """Headers that never end, each byte in time."""
    for _ in range(60):
        request.handler.wfile.write(b"X")
        request.handler.wfile.flush()
        time.sleep(0.05)


def _endless(request: Request) -> None:
    request.handler.send_response(200)
    request.handler.end_headers()
    for _ in range(64):
        request.handler.wfile.write(b" " * 65_536)
    request.handler.close_connection = True


def _hang_up(request: Request) -> None:
    request.handler.connection.shutdown(socket.SHUT_RDWR)
    request.handler.close_connection = True


def _sends(content: bytes, code: int = 200, **more: Any) -> Callable[[Request], None]:
    return lambda request: request.send(content, code, **more)


def _says(message: Any, reason: Any = "stop") -> Callable[[Request], None]:
    return lambda request: request.send(json.dumps(request.choice(message, reason)).encode())


ERROR = b'{"error": {"message": "no such field", "code": "content_filter"}}'
# What the server does -> how the row ends.
FAULTS: dict[str, tuple[Callable[[Request], None], str]] = {
    "a page": (_sends(b"<!doctype html><html>Sign in</html>"), "html"),
    "half of an answer": (_sends(b'{"choices": [{"message": {"con'), "not_json"),
    "nothing": (_sends(b""), "not_json"),
    "lists in lists": (_sends(b"[" * 50_000), "not_json"),
    "no choices": (_sends(b'{"choices": []}'), "no_choices"),
    "choices of another type": (_sends(b'{"choices": {"message": 1}}'), "wrong_type"),
    "a list": (_sends(b"[1]"), "wrong_type"),
    "an error with status 200": (_sends(b'{"error": {"message": "m"}}'), "wrong_type"),
    "a number for a text": (_says({"content": 3}), "wrong_type"),
    "no text": (_says({"content": None}), "wrong_type"),
    "a filter": (_says({"content": "half a"}, "content_filter"), "content_filter"),
    "a filter, as an error": (_sends(ERROR, 400), "content_filter"),
    "a refusal": (_says({"content": None, "refusal": "I cannot"}), "refusal"),
    "too long": (_says({"content": "one two"}, "length"), "length"),
    "only thoughts": (_says({"content": None}, "length"), "length"),
    "an unknown end": (_says({"content": "one two"}, "eos_token"), "stop"),
    "half a letter": (_says({"content": "one \ud800 two"}), "stop"),
    "400": (_sends(b'{"error": {"message": "m"}}', 400), "http_400"),
    "413": (_sends(b"", 413), "http_413"),
    "429": (_sends(b"", 429), "http_429"),
    "500": (_sends(b"<html>", 500), "http_500"),
    "a redirect": (_sends(b"", 302, headers={"Location": "http://127.0.0.1:1/v1"}), "http_302"),
    "silence": (_stall, "timeout"),
    "a drip": (_drip, "timeout"),
    "endless": (_endless, "too_large"),
    "too much": (_says({"content": "word " * 17_000}), "too_large"),
    "much": (_says({"content": "word " * 100}), "stop"),
    "a connection that ends": (_hang_up, "connection_error"),
    "less than its length": (_sends(b'{"choices": []}', length=500), "incomplete"),
    "more than its length": (_sends(b'{"choices": [1, 2, 3]}', length=12), "not_json"),
}


def test_a_fault_is_an_outcome_of_its_own_row_and_of_no_other(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    part, jpegs = make_pictures(tmp_path, len(FAULTS) + 4)
    faulty = dict(zip(expected(jpegs, "long"), FAULTS.values(), strict=False))

    def reply(request: Request) -> None:
        act, _ = faulty.get(request.caption, (Request.answer, ""))
        act(request)

    server.reply = reply
    quick = section(server.url, {"timeout_s": 0.7, "num_retries": 1})
    with caplog.at_level(logging.INFO):
        table, counts = captioned(part, quick, tmp_path / "out.parquet")
    ended = dict(zip(FAULTS, table["long_finish_reason"].to_list(), strict=False))
    assert ended == {name: word for name, (_, word) in FAULTS.items()}
    assert table["long_finish_reason"].to_list()[len(FAULTS) :] == ["stop"] * 4
    assert table["caption_short"].to_list() == expected(jpegs, "short")
    answered = table.filter(pl.col("long_finish_reason").is_in(["stop", "length"]))
    failed = table.filter(~pl.col("uid").is_in(answered["uid"].to_list()))
    assert set(failed["caption_long"].to_list()) == {""} and failed.height == 25
    assert all("empty" in flags for flags in failed["long_flags"].to_list())
    texts = dict(zip(FAULTS, table["caption_long"].to_list(), strict=False))
    assert (texts["too long"], texts["half a letter"]) == ("one two", "one ? two")
    words = [word for _, word in FAULTS.values()]
    ours = {word: words.count(word) for word in [*chat.WORDS, "http_400", "http_500"] if word in words}
    assert ours.items() <= counts["failed"].items()
    assert not {"refusal", "content_filter"} & counts["failed"].keys()
    assert "picture 00000000000000000000000000000000: no long caption: html" in caplog.text
    # Once more, what may pass.
    tried = {name: server.asked[caption] for name, caption in zip(FAULTS, faulty, strict=True)}
    again = {"html", "not_json", "timeout", "incomplete", "connection_error", "http_429", "http_500"}
    assert tried == {name: 2 if word in again else 1 for name, (_, word) in FAULTS.items()}


def test_what_fails_for_a_while_is_asked_again_after_the_pause_that_the_server_wants(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, jpegs = make_pictures(tmp_path, 4)
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    faults = [_sends(b"", 429, headers={"Retry-After": "7"}), _sends(b"busy", 503), _hang_up]
    seen: set[str] = set()

    def reply(request: Request) -> None:
        number = expected(jpegs, "long").index(request.caption) if request.prompt == "long" else 3
        if number < 3 and request.caption not in seen:
            seen.add(request.caption)
            faults[number](request)
        else:
            request.answer()

    server.reply = reply
    monkeypatch.setattr(client.asyncio, "sleep", sleep)
    table, counts = captioned(part, section(server.url), tmp_path / "out.parquet")
    assert table["caption_long"].to_list() == expected(jpegs, "long") and not counts["failed"]
    assert sorted(pauses)[2] == 7 and max(sorted(pauses)[:2]) <= 0.001 and len(pauses) == 3


def test_pauses_grow_and_differ_and_a_server_that_wants_an_hour_is_not_waited_for(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, _ = make_pictures(tmp_path, 1)
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(client, "_FIRST_PAUSE_S", 0.5)
    monkeypatch.setattr(client.asyncio, "sleep", sleep)
    server.reply = _sends(b"", 503)
    with pytest.raises(ValueError, match="all requests ended as http_503"):
        captioned(part, section(server.url, {"num_retries": 8}), tmp_path / "out.parquet")
    bounds = [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert len(pauses) == 16 and len(set(pauses)) == 16
    assert all(bound / 2 <= pause <= bound for pause, bound in zip(pauses, bounds * 2, strict=True))
    server.reply = _sends(b"", 429, headers={"Retry-After": "3600"})
    server.asked.clear()
    with pytest.raises(ValueError, match="asks for a pause of 3600 s"):
        captioned(part, section(server.url), tmp_path / "out.parquet")
    assert set(server.asked.values()) == {1}


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["choices", "message", "content", "finish_reason", "usage", "error", "model"]
                ),
                inner,
            )
        ),
        max_leaves=12,
    ),
    st.sampled_from([200, 400, 500]),
)
def test_any_json_is_read_as_an_answer_or_as_a_word(body: Any, code: int) -> None:
    found = chat.read_answer(code, json.dumps(body).encode())
    assert isinstance(found, chat.Answer) or found.word in (*chat.WORDS, f"http_{code}")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_are_read_as_a_word(content: bytes) -> None:
    found = chat.read_answer(200, content)
    assert isinstance(found, chat.Failed) and found.word in chat.WORDS


@pytest.mark.parametrize("number", [True, -1, 2**40, 1.5, "7", None])
def test_tokens_that_are_no_number_of_tokens_are_unknown(tmp_path: Path, server: Server, number: Any) -> None:
    part, _ = make_pictures(tmp_path, 1)
    usage = {"prompt_tokens": number, "completion_tokens": number}
    server.reply = lambda request: request.answer(usage=usage)
    table, counts = captioned(part, section(server.url), tmp_path / "out.parquet")
    assert table["long_num_tokens"].to_list() == [None] and counts["answers_without_usage"] == 2
    assert counts["prompt_tokens"] == counts["completion_tokens"] == counts["long_tokens"] == 0


# A server that is away, and keys


def test_a_server_that_is_away_ends_the_part_early_and_it_is_named(tmp_path: Path) -> None:
    part, _ = make_pictures(tmp_path, 200)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
    with pytest.raises(ValueError, match=f"{url}: 16 requests in a row ended as connection_error .*no key"):
        captioned(part, section(url), tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_a_server_that_never_answers_is_not_waited_for_through_all_tries(
    tmp_path: Path, server: Server
) -> None:
    part, _ = make_pictures(tmp_path, 100)
    server.reply = _stall
    with pytest.raises(ValueError, match="16 requests in a row ended as timeout"):
        captioned(part, section(server.url, {"timeout_s": 0.2, "num_retries": 20}), tmp_path / "out.parquet")
    # Two rounds of eight, and what was under way when 16 requests had ended.
    assert server.asked.total() <= 16 + 8 + 16


@pytest.mark.parametrize("code", [401, 403])
def test_a_wrong_key_ends_the_part_early_and_what_was_answered_is_not_asked_again(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setenv("CAPTIONS_KEY", KEY)
    part, jpegs = make_pictures(tmp_path, 100)
    chosen = section(server.url, {"key_variable": "CAPTIONS_KEY", "concurrency": 4})
    refusing = [_sends(b'{"error": {"message": "wrong key sk-t***"}}', code)]

    def reply(request: Request) -> None:
        is_early = server.asked.total() <= 20 and code == 403
        (Request.answer if is_early or not refusing else refusing[0])(request)

    server.reply = reply
    match = f"{server.url}: 16 requests in a row ended as http_{code}; .* the key of.*CAPTIONS_KEY"
    with pytest.raises(ValueError, match=match) as told:
        captioned(part, chosen, tmp_path / "out.parquet")
    assert "sk-t" not in str(told.value) and server.asked.total() < 60
    refusing.clear()
    server.asked.clear()
    table, _ = captioned(part, chosen, tmp_path / "out.parquet")
    assert table["caption_long"].to_list() == expected(jpegs, "long")
    assert server.asked.total() <= 200 - (16 if code == 403 else 0) and max(server.asked.values()) == 1
    assert server.keys == {f"Bearer {KEY}"}


def test_of_a_small_part_all_of_whose_requests_fail_for_one_bad_picture_each_the_rows_tell_it(
    tmp_path: Path, server: Server
) -> None:
    part, _ = make_pictures(tmp_path, 2)
    server.reply = _sends(b"", 400)
    table, counts = captioned(part, section(server.url), tmp_path / "out.parquet")
    assert counts["failed"] == {"http_400": 4} and table["caption_long"].to_list() == ["", ""]
    server.reply = _sends(b"", 404)
    with pytest.raises(ValueError, match="all requests ended as http_404"):
        captioned(part, section(server.url), tmp_path / "other.parquet")


def test_the_key_is_nowhere_also_where_the_server_repeats_it(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CAPTIONS_KEY", f"{KEY}\n")
    part, _ = make_pictures(tmp_path, 30)
    chosen = section(server.url, {"key_variable": "CAPTIONS_KEY"})
    server.reply = _sends(json.dumps({"error": {"message": f"bad request of {KEY}"}}).encode(), 400)
    with caplog.at_level(logging.DEBUG), pytest.raises(ValueError, match=r"bad request of \*\*\*") as told:
        captioned(part, chosen, tmp_path / "out.parquet")
    records = [record for record in caplog.records if record.name.startswith("darkroom")]
    assert records and not [record for record in records if KEY in record.getMessage()]
    assert KEY not in str(told.value) and KEY not in repr(client.Endpoint("u", KEY, None, 1, 1, 1, 1, "s"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_a_key_that_is_missing_or_none_is_refused_before_anything_is_asked(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, _ = make_pictures(tmp_path, 1)
    chosen = section(server.url, {"key_variable": "CAPTIONS_KEY"})
    monkeypatch.delenv("CAPTIONS_KEY", raising=False)
    assert "environment variable CAPTIONS_KEY is not set here" in SPEC.missing(chosen)
    with pytest.raises(ValueError, match=r"CAPTIONS_KEY is not set here.*export CAPTIONS_KEY=KEY"):
        captioned(part, chosen, tmp_path / "out.parquet")
    monkeypatch.setenv("CAPTIONS_KEY", f"{KEY}\nX-Other: 1")
    with pytest.raises(ValueError, match="CAPTIONS_KEY holds is no key") as told:
        captioned(part, chosen, tmp_path / "out.parquet")
    assert KEY not in str(told.value) and not server.asked
    assert SPEC.missing(chosen) == ""
