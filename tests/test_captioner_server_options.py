"""The options of the captioner that asks a server."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from captioner_fixtures import server  # noqa: F401 - a fixture
from doc_pages import DOCS, blocks
from played_captioner import Server, captioned, expected, make_pictures, section

from darkroom.config import ConfigError, load_dataset
from darkroom.config.dataset import Dataset
from darkroom.store import sha256_file, sha256_json

LOCAL = "http://127.0.0.1:{port}/v1"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"url": "ftp://host/v1"},
            "recaption: url: 'ftp://host/v1' is no address of an API such as http://127",
        ),
        ({"url": "https://"}, "recaption: url: 'https:' is no address"),
        ({"url": "http://host:99999/v1"}, "recaption: url: 'http://host:99999/v1' is no address"),
        (
            {"url": "https://me:sk-secret@host/v1"},
            "recaption: url: it has a user, a query or a fragment; a key",
        ),
        (
            {"url": "https://host/v1?key=sk-secret"},
            "recaption: url: it has a user, a query or a fragment; a key",
        ),
        ({"url": LOCAL}, "recaption: command: it goes together with {port}"),
        ({"command": ["serve"]}, "recaption: command: it goes together with {port}"),
        (
            {"command": ["serve", "{port}"], "url": "http://node7:{port}/v1"},
            "recaption: url: the server of a comm",
        ),
        (
            {"command": ["serve", "--api-key=sk-secret", "{port}"], "url": LOCAL},
            "recaption: command: a key stands",
        ),
        ({"model": ""}, "recaption.model: string should have at least 1 character"),
        ({"temperature": -1}, "recaption.temperature: input should be greater than or equal to 0"),
        (
            {"requests": {"key_variable": "sk-secret"}},
            "recaption.requests: key_variable: it should be a variable's",
        ),
        ({"requests": {"concurrency": 0}}, "recaption.requests.concurrency: input should be"),
        ({"requests": {"timeout_s": 0}}, "recaption.requests.timeout_s: input should be"),
        ({"requests": {"num_retries": -1}}, "recaption.requests.num_retries: input should be"),
        (
            {"requests": {"price_per_million_tokens": {"input": -1, "output": 1}}},
            "recaption.requests.price_per_million_tokens.input: input should be",
        ),
        ({"captioner": "c"}, "recaption.captioner: unknown key"),
        ({"modle": "c"}, "recaption.modle: unknown key; did you mean 'model'?"),
        ({"kind": "servr"}, "recaption: kind must be one of transformers, server"),
    ],
)
def test_nonsense_is_refused_by_the_name_of_its_key(
    tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    prompts = {"captions": {"long": {"prompt": "l"}, "short": {"prompt": "s"}}}
    body = {"kind": "server", "url": "https://api.example/v1", "model": "m", **prompts, **values}
    source = {"kind": "pictures", "folder": "somewhere"}
    path = tmp_path / "config/datasets/mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump({"description": "d", "source": source, "recaption": body}))
    with pytest.raises(ConfigError) as told:
        load_dataset("mine", tmp_path)
    assert str(told.value).startswith(f"{path}: {message}") and "sk-secret" not in str(told.value)


def test_each_caption_is_asked_with_its_own_options_and_a_sampled_one_with_a_seed_of_its_own(
    tmp_path: Path, server: Server
) -> None:
    part, jpegs = make_pictures(tmp_path, 3)
    captions = {
        "long": {"prompt": "l", "temperature": 0.7, "top_p": 0.9, "max_new_tokens": 300},
        "tags": {"prompt": "t", "temperature": 0.7},
        "why": {"prompt": "w"},
    }
    table, counts = captioned(part, section(server.url, captions=captions, max_new_tokens=50), tmp_path / "a")
    assert table["caption_tags"].to_list() == expected(jpegs, "t") and counts["why_tokens"]
    sent = {(b["messages"][0]["content"][1]["text"], place): b for place, b in enumerate(server.bodies)}
    told = {name: [b for (prompt, _), b in sent.items() if prompt == name] for name in "ltw"}
    assert {b["max_tokens"] for b in told["l"]} == {300} and {b["top_p"] for b in told["l"]} == {0.9}
    assert {b["max_tokens"] for b in told["t"]} == {50} and "top_p" not in told["t"][0]
    assert {(b["temperature"], b["seed"]) for b in told["w"]} == {(0.0, 0)}
    seeds = [b["seed"] for name in "lt" for b in told[name]]
    assert len(set(seeds)) == 6 and all(0 <= seed < 2**31 for seed in seeds)
    server.bodies.clear()
    captioned(part, section(server.url, captions=captions, max_new_tokens=50), tmp_path / "b")
    again = [b["seed"] for b in server.bodies if b["temperature"]]
    assert sorted(again) == sorted(seeds) and sha256_file(tmp_path / "a") == sha256_file(tmp_path / "b")


def test_how_a_server_is_asked_is_in_no_settings_so_a_change_makes_nothing_again() -> None:
    one = section("http://127.0.0.1:1/v1", {"concurrency": 3, "key_variable": "A_KEY"})
    other = section("http://127.0.0.1:1/v1/", {"num_retries": 9})
    assert "requests" not in one.model_dump(mode="json") and "A_KEY" not in one.model_dump_json()
    assert sha256_json(one.model_dump(mode="json")) == sha256_json(other.model_dump(mode="json"))


def test_the_examples_of_the_docs_are_captioners() -> None:
    examples = [
        "\n".join(block) for block in blocks("yaml", DOCS / "recaption.md") if "extends: demo" not in block
    ]
    chosen = [Dataset.model_validate(yaml.safe_load(text)).recaption for text in examples]
    assert [part and part.kind for part in chosen] == ["server", "server"]


def test_the_benchmark_prints_the_share_of_a_servers_capacity() -> None:
    command = [
        sys.executable,
        "trials/captions.py",
        "--pictures",
        "12",
        "--slots",
        "2",
        "--seconds",
        "0.02",
    ]
    done = subprocess.run(
        [*command, "--side", "32"], cwd=Path(__file__).parents[1], capture_output=True, text=True
    )
    assert done.returncode in (0, 1), done.stderr[-2000:]
    assert re.search(r"24 captions in .*/s of 100.0/s with 2 requests under way, \d+\.\d%", done.stdout)
