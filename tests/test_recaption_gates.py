"""Captions that do not pass are asked for again, of others too, and pictures without are dropped: all counted."""

import json
import os
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import warm
from captioner_fixtures import server, short_pauses  # noqa: F401 - fixtures
from played_captioner import MODEL, Request, Server, caption_of, make_pictures, section, serving
from test_captioners import PLUGIN
from test_recaption import captioned as captioned_by_llava
from test_recaption import component, make_part, one_thread, with_captions  # noqa: F401 - fixtures

from darkroom.captioners.base import RETRY_TEMPERATURE
from darkroom.captioners.scratch import scratch_folder
from darkroom.captioners.table import CAPTIONERS
from darkroom.config.gates import CaptionGates
from darkroom.recaption.stage import recaption_part
from darkroom.store import read_table, sha256_file

TESTS = Path(__file__).parent
BAD = "bad bad bad bad"
FLAGS = {"kind": "flags", "none_of": ["repetitive"]}


def gates(**values: Any) -> CaptionGates:
    return CaptionGates.model_validate({"gates": [FLAGS], **values})


def bad_tries(of: dict[str, int]) -> Any:
    """Answers that repeat themselves in the first so many tries of a caption (as `caption_of` has it)."""
    tries: Counter[str] = Counter()

    def reply(request: Request) -> None:
        tries[request.caption] += 1
        is_bad = tries[request.caption] <= of.get(request.caption, 0)
        text = BAD if is_bad else f"{request.caption} of seed {request.body['seed']}"
        request.answer(f"{BAD} {request.body['seed']}" if is_bad else text)

    return reply


@pytest.mark.parametrize("otherwise", ["drop", "keep"])
def test_a_caption_is_asked_for_again_until_it_passes_and_else_its_picture_is_dropped_or_kept(
    tmp_path: Path,
    server: Server,  # noqa: F811
    otherwise: str,
) -> None:
    part, jpegs = make_pictures(tmp_path, 6)
    short = [caption_of(jpeg, "short") for jpeg in jpegs]
    server.reply = bad_tries({short[1]: 1, short[2]: 2, short[3]: 3, caption_of(jpegs[4], "long"): 9})
    limits = gates(gates=[{**FLAGS, "captions": ["short"]}], retries=2, otherwise=otherwise)
    counts = recaption_part(*part, section(server.url), {}, tmp_path / "a.parquet", limits)
    table = read_table(tmp_path / "a.parquet")
    assert table["short_tries"].to_list() == [1, 2, 3, 3, 1, 1] and set(table["long_tries"]) == {1}
    assert table["short_gate"].to_list() == [None, None, None, "flags", None, None]
    # Nothing looks at the long one.
    assert table["caption_long"][4].startswith(BAD) and table["long_gate"].null_count() == 6
    dropped = [None, None, None, "flags", None, None] if otherwise == "drop" else [None] * 6
    assert table["dropped"].to_list() == dropped
    # The first try is what is there of one that never passes: greedy, and the others were sampled.
    assert table["caption_short"][3] == f"{BAD} 0"
    bodies = [b for b in server.bodies if b["messages"][0]["content"][1]["text"] == "short"]
    assert Counter(b["temperature"] for b in bodies) == {0.0: 6, RETRY_TEMPERATURE: 5}
    assert len({b["seed"] for b in bodies if b["temperature"]}) == 5
    assert counts["passed"] == {
        "long": {"at_once": 6}, "short": {"at_once": 3, "after_1_retry": 1, "after_2_retries": 1}
    }  # fmt: skip
    assert counts["not_passed"] == {"long": {}, "short": {"flags": 1}}
    assert counts["dropped"] == ({"flags": 1} if otherwise == "drop" else {})
    assert counts["kept"] == (5 if otherwise == "drop" else 6) and counts["answered_by"] == {MODEL: 17}
    assert not scratch_folder(tmp_path / "a.parquet").exists()


def test_what_never_passes_is_asked_of_the_fallbacks_in_turn_and_each_says_who_it_is(
    tmp_path: Path,
    server: Server,  # noqa: F811
) -> None:
    part, jpegs = make_pictures(tmp_path, 5)
    long = [caption_of(jpeg, "long") for jpeg in jpegs]
    server.reply = bad_tries(dict.fromkeys(long[:3], 99))
    with serving() as second, serving() as third:
        second.reply = bad_tries(dict.fromkeys(long[:2], 1))
        third.reply = bad_tries({long[0]: 99})
        fallbacks = [section(s.url, captions={}, model=m) for s, m in ((second, "two"), (third, "three"))]
        limits = gates(otherwise="fallback", fallbacks=fallbacks)
        counts = recaption_part(*part, section(server.url), {}, tmp_path / "a.parquet", limits)
        table = read_table(tmp_path / "a.parquet")
        assert table["long_captioner"].to_list() == [0, 2, 1, 0, 0]
        assert table["long_tries"].to_list() == [3, 3, 2, 1, 1]
        assert table["long_gate"].to_list() == table["dropped"].to_list() == ["flags", *[None] * 4]
        assert table["caption_long"][2].startswith(long[2])
        assert second.asked == dict.fromkeys(long[:3], 1) and third.asked == dict.fromkeys(long[:2], 1)
        assert (
            set(table["model_path.2"]) == {third.url} and json.loads(table["decoding.1"][0])["model"] == "two"
        )
        assert counts["passed"]["long"] == {"at_once": 2, "by_fallback_1": 1, "by_fallback_2": 1}
        assert counts["fallback_1"]["answered_by"] == {MODEL: 3} and counts["dropped"] == {"flags": 1}
        # Where nothing is left for them, fallbacks are not asked, and the columns are the same.
        server.reply, before = Request.answer, second.asked.total()
        told = recaption_part(*part, section(server.url), {}, tmp_path / "b.parquet", limits)
        again = read_table(tmp_path / "b.parquet")
        assert again.schema == table.schema and again["model.1"].null_count() == 5
        assert second.asked.total() == before and "fallback_1" not in told


def test_the_first_gate_that_a_caption_does_not_pass_is_told_and_an_empty_part_has_all_columns(
    tmp_path: Path,
    server: Server,  # noqa: F811
) -> None:
    part, jpegs = make_pictures(tmp_path, 3)
    server.reply = bad_tries({caption_of(jpegs[0], "long"): 9})
    both = [{**FLAGS, "name": "again"}, {"kind": "alt_text", "min": 0.9}]
    counts = recaption_part(*part, section(server.url), {}, tmp_path / "a.parquet", gates(gates=both))
    table = read_table(tmp_path / "a.parquet")
    assert table["long_gate"].to_list() == ["again", "alt_text", "alt_text"]
    assert counts["not_passed"]["long"] == {"again": 1, "alt_text": 2} and counts["kept"] == 0
    pl.read_parquet(part[2]).with_columns(kept=pl.lit(False)).write_parquet(part[2])
    counts = recaption_part(*part, section(server.url), {}, tmp_path / "b.parquet", gates(gates=both))
    assert read_table(tmp_path / "b.parquet").schema == table.schema and counts["dropped"] == {}


def test_sampled_tries_give_the_same_bytes_again_and_change_only_what_did_not_pass(
    tmp_path: Path,
    component: Any,  # noqa: F811
) -> None:
    plain, _ = captioned_by_llava(tmp_path / "plain", component)
    texts = read_table(plain)
    settings = with_captions()
    limits = gates(
        gates=[{"kind": "alt_text", "min": 0.0}, {"kind": "flags", "none_of": ["truncated"]}], retries=3
    )
    files = []
    for name in ("a", "b"):
        part, out = make_part(tmp_path / name, [4, 0, 6, 2, 5, 1, 3]), tmp_path / f"{name}.parquet"
        counts = recaption_part(*part, settings, {"tiny": component}, out, limits)
        files.append(sha256_file(out))
    assert files[0] == files[1]
    table = read_table(tmp_path / "a.parquet")
    assert (table["long_tries"] > 1).any() and counts["computed_in"] == {"float32": 6}
    for name in ("long", "short"):
        kept = (table[f"{name}_tries"] == 1) | table[f"{name}_gate"].is_not_null()
        same = table[f"caption_{name}"] == texts[f"caption_{name}"]
        assert same.filter(kept).all()


JOB = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from played_captioner import section
from test_recaption_gates import gates
from darkroom.recaption.stage import recaption_part
folder = Path({folder!r})
part = (folder / "part.parquet", folder / "part.tar", folder / "selection.parquet")
print("begins", flush=True)
limits = gates(retries=2, otherwise="fallback", fallbacks=[section({other!r}, captions={{}}, model="two")])
recaption_part(*part, section({url!r}), {{}}, folder / "killed.parquet", limits)
"""


def test_a_job_that_is_killed_again_and_again_ends_with_the_same_bytes_and_asks_little_twice(
    tmp_path: Path,
    server: Server,  # noqa: F811
) -> None:
    part, _ = make_pictures(tmp_path, 60)

    def by_seed(request: Request) -> None:
        """Bad or not by picture and try alone, as a model with a seed is."""
        is_bad = (request.body["seed"] + len(request.jpeg) + request.jpeg[-9]) % 3 == 0
        time.sleep(0.002)
        request.answer(BAD if is_bad else f"{request.caption} {request.body['seed']}")

    server.reply = by_seed
    with serving() as other:
        other.reply = by_seed
        fallback = section(other.url, captions={}, model="two")
        limits = gates(retries=2, otherwise="fallback", fallbacks=[fallback])
        counts = recaption_part(*part, section(server.url), {}, tmp_path / "whole.parquet", limits)
        assert counts["passed"]["long"]["after_1_retry"] and counts["fallback_1"]["answered_by"]
        needed = server.asked.total() + other.asked.total()
        server.asked.clear(), other.asked.clear()
        code = JOB.format(tests=str(TESTS), folder=str(tmp_path), url=server.url, other=other.url)
        job = {"args": ["python", "-c", code], "env": warm.jobs.environment(os.environ)}
        for _ in range(5):
            with subprocess.Popen(**job, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None and process.stdout.readline() == b"begins\n"
                target = server.asked.total() + other.asked.total() + 20
                while server.asked.total() + other.asked.total() < target and process.poll() is None:
                    time.sleep(0.001)
                process.kill()
        again = recaption_part(*part, section(server.url), {}, tmp_path / "killed.parquet", limits)
        assert sha256_file(tmp_path / "killed.parquet") == sha256_file(tmp_path / "whole.parquet")
        assert again == counts
        assert needed <= server.asked.total() + other.asked.total() <= needed + 5 * 8


def test_a_kind_that_cannot_sample_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict = {}
    exec(compile(PLUGIN, "plugin.py", "exec"), names)
    monkeypatch.setitem(CAPTIONERS, "sides", names["SPEC"])
    asked = names["Sides"](kind="sides", eyes="e", captions={"long": {"prompt": "l"}})
    gates().check(asked)
    with pytest.raises(
        ValueError, match="retries: a captioner of the kind sides cannot sample, and a new try"
    ):
        gates(retries=1).check(asked)
