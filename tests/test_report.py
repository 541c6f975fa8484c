"""The report: one file that loads nothing, believes nothing, and says what is missing."""

import json
import re
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest
from report_inputs import HOSTILE, STAGES, make_inputs

from darkroom.report.build import DatasetInputs, ReportInputs, build_report
from darkroom.report.data import after_gates, read_captions, read_funnel
from darkroom.report.plots import running_mean
from darkroom.report.results import read_pictures, read_results
from darkroom.report.runs import clock, read_chain, read_costs, read_goodput
from darkroom.report.times import digest_without_times
from darkroom.store import read_table, write_table
from darkroom.train.goodput import LABELS
from darkroom_demo.captions import long_caption, short_caption
from darkroom_demo.judge import caption_is_right
from darkroom_demo.scenes import Scene, Thing

SECTIONS = ("result", "pictures", "data", "captions", "buckets", "training", "cost", "provenance")


class Page(HTMLParser):
    """Every tag of a page with its attributes, and the visible text of each section."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text: dict[str, str] = {}
        self._section = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self._section = dict(attrs)["id"]

    def handle_data(self, data):
        self.text[self._section] = self.text.get(self._section, "") + data


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> ReportInputs:
    return make_inputs(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(inputs, tmp_path_factory) -> Page:
    return Page(build_report(inputs, tmp_path_factory.mktemp("out") / "report.html").read_text())


def test_every_section_is_there_and_has_its_contents(page):
    assert [attrs["id"] for tag, attrs in page.tags if tag == "section"] == list(SECTIONS)
    assert not [name for name in SECTIONS if re.search(r"\bNo \w+(:| were)", page.text[name])]
    expected = {
        "result": "GenEval, overall",
        "pictures": "a photo of a circle",
        "data": "http_404",
        "captions": "Long caption",
        "buckets": "64 \N{MULTIPLICATION SIGN} 64",
        "training": "after step 500",
        "cost": "4 min 11 s",
        "provenance": "rows_per_part",
    }
    for name, text in expected.items():
        assert text in page.text[name], name


def test_nothing_is_loaded_from_elsewhere_and_no_script_runs(page):
    for tag, attrs in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form"), tag
        assert not [name for name in attrs if name.startswith("on")]
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            if name in attrs:
                assert attrs[name].startswith(("data:image/", "#")), attrs[name][:60]
    policy = next(a["content"] for t, a in page.tags if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_styles_name_no_url_and_links_lead_to_sections(page, inputs, tmp_path):
    text = build_report(inputs, tmp_path / "r.html").read_text()
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert {a["href"] for t, a in page.tags if t == "a"} == {f"#{name}" for name in SECTIONS}


def test_hostile_texts_are_shown_as_text(page, inputs, tmp_path):
    for name in ("captions", "data", "pictures", "provenance"):
        assert "<script>alert('x')</script>" in page.text[name], name
    raw = build_report(inputs, tmp_path / "r.html").read_text()
    assert "<script" not in raw and 'src="http' not in raw
    of = replace(inputs.datasets[0], dataset=HOSTILE)
    hostile = replace(inputs, run=HOSTILE, datasets=[of], description=HOSTILE)
    assert "<script" not in build_report(hostile, tmp_path / "h.html").read_text()


def test_every_picture_has_a_text_for_those_who_do_not_see_it(page):
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) > 96
    assert all(attrs.get("alt") for attrs in pictures)


def test_a_report_of_nothing_says_what_is_missing(tmp_path):
    empty = ReportInputs(run="bare", datasets=[DatasetInputs("none")], metrics=tmp_path / "not-there.json")
    page = Page(build_report(empty, tmp_path / "report.html").read_text())
    for name in SECTIONS:
        assert re.search(r"\bNo \w+(:| were)", page.text[name]), name


def test_an_untrained_model_is_not_required(inputs, tmp_path):
    import json

    metrics = json.loads(inputs.metrics.read_text())
    del metrics["untrained"], metrics["difference"]
    alone = tmp_path / "metrics.json"
    alone.write_text(json.dumps(metrics))
    page = Page(build_report(replace(inputs, metrics=alone), tmp_path / "r.html").read_text())
    assert "68 %" in page.text["result"] and "Untrained" not in page.text["result"]


def test_the_same_inputs_give_the_same_page(inputs, tmp_path):
    pages = [build_report(inputs, tmp_path / name).read_bytes() for name in ("a.html", "b.html")]
    assert pages[0] == pages[1]


def test_scores_come_in_genevals_order_with_intervals(inputs):
    found = read_results(inputs.metrics)
    (geneval,) = found["by_task"]
    assert [row["key"] for row in geneval["rows"]][:3] == ["overall", "single_object", "two_object"]
    assert geneval["rows"][0]["trained"] == {"value": 0.68, "low": pytest.approx(0.59), "high": 0.77}
    frechet = next(row for row in found["numbers"] if row["name"].startswith("Fréchet distance"))
    assert frechet["difference"]["value"] == "\N{MINUS SIGN}0.689"
    assert frechet["definition"].endswith("1000 real, 252 generated")
    assert found["headline"] == {"name": "GenEval overall", "trained": "68 %", "untrained": "2 %"}


def test_pictures_are_paired_and_spread_over_a_tasks_prompts(inputs):
    (task, *_) = read_pictures(inputs.prompts, inputs.pictures, 1)
    assert (task["shown"], task["number"]) == (1, 2)
    (prompt,) = task["prompts"]
    assert [model["name"] for model in prompt["models"]] == ["trained", "untrained"]
    assert [len(model["pictures"]) for model in prompt["models"]] == [4, 4]
    assert prompt["models"][1]["right"] == 0


def test_the_funnel_leaves_out_pairs_that_never_fail_together(inputs):
    funnel = read_funnel(inputs.datasets[0].funnel)
    assert [step["remaining"] for step in funnel["steps"]][-1] == funnel["kept"] == 4191
    assert funnel["joint"] == [{"first": "pwatermark fails", "second": "duplicate fails", "fails": 12}]
    assert funnel["statuses"][0]["name"] == "ok"


def test_captions_are_counted_right_where_the_truth_is_known(inputs):
    of = inputs.datasets[0]
    judge = partial(of.truth.judge, of.listed)
    found = read_captions(of.captions, of.tables, of.tars, judge, 8)
    by_name = {row["name"]: row for row in found["summary"]}
    assert by_name["Long caption"]["right"] == pytest.approx(23 / 24)
    assert by_name["Short caption"]["right"] == 1
    assert by_name["Alt-text"]["right"] < 0.3
    assert by_name["Short caption"]["truncated"] == 1
    assert any(text["right"] is False for e in found["examples"] for text in e["texts"][1:])
    unknown = read_captions(of.captions, of.tables, of.tars, None, 3)
    assert unknown["judged"] == 0 and unknown["summary"][0]["right"] is None


def test_what_gates_did_is_told_and_who_was_dropped_is_a_step_of_the_funnel(inputs, tmp_path):
    of = inputs.datasets[0]
    gate = ["similarity", "flags", None, "flags", *[None] * 20]
    told = {
        **{f"{name}_{what}": [value] * 24 for name in ("long", "short")
           for what, value in (("captioner", 0), ("tries", 1))},
        "long_gate": gate, "long_tries": [3, 3, 2, 3, *[1] * 20], "long_captioner": [1, 0, 0, 0, 1, *[0] * 19],
        "short_gate": pl.Series([None] * 24, dtype=pl.String), "dropped": gate,
    }  # fmt: skip
    path = tmp_path / "captions.parquet"
    write_table(path, read_table(of.captions[0]).with_columns(**{k: pl.Series(v) for k, v in told.items()}))
    changed = replace(inputs, datasets=[replace(of, captions=[path])])
    text = Page(build_report(changed, tmp_path / "report.html").read_text()).text
    plain = " ".join(text["captions"].split())
    assert "Pictures that were dropped for their captions: flags 2, similarity 1; 21 are left." in plain
    shown = read_captions([path], of.tables, of.tars, None, 3)["gates"]["rows"]
    assert [[*row.values()] for row in shown] == [
        ["Long caption", 19, 1, 1, 3, "flags 2, similarity 1"], ["Short caption", 24, 0, 0, 0, ""]
    ]  # fmt: skip
    assert "does not pass flags" in plain
    assert "a caption does not pass flags" in text["data"]
    found = after_gates(read_funnel(of.funnel), {"dropped": {"flags": 2, "similarity": 1}})
    assert [step["removed"] for step in found["steps"][-2:]] == [2, 1]
    assert found["kept"] == found["steps"][-1]["remaining"] == read_funnel(of.funnel)["kept"] - 3


def test_rewritten_captions_are_shown_beside_the_others_with_who_wrote_them_and_what_their_gates_did(
    inputs, tmp_path
):
    of = inputs.datasets[0]
    keys = read_table(of.captions[0], ["uid", "row"]).sort("uid")
    # Two pictures were dropped before, and are not asked about.
    reasons = [*["no_source"] * 3, *["stop"] * 19]
    gate = ["flags", *[None] * 21]
    told = {
        "caption_brief": ["" if why == "no_source" else "a red circle" for why in reasons],
        "brief_finish_reason": reasons, "brief_num_tokens": [3] * 22,
        "brief_flags": [["empty"] if why == "no_source" else [] for why in reasons],
        "brief_captioner": [0] * 22, "brief_tries": [0] * 3 + [1] * 19, "brief_gate": gate,
        "dropped": gate, "model": ["some-model"] * 22,
    }  # fmt: skip
    path = tmp_path / "rewritten.parquet"
    write_table(path, keys[2:].with_columns(**{k: pl.Series(v) for k, v in told.items()}))
    changed = replace(inputs, datasets=[replace(of, rewritten=[path])])
    text = Page(build_report(changed, tmp_path / "report.html").read_text()).text
    plain = " ".join(text["captions"].split())
    assert "some-model wrote others, which ended as follows. Brief caption: no_source 3, stop 19." in plain
    assert "were dropped for their captions: flags (rewritten) 1; 21 are left." in plain
    assert "a caption does not pass flags (rewritten)" in text["data"]
    found = read_captions(of.captions, of.tables, of.tars, None, 24, [path])
    before = read_captions(of.captions, of.tables, of.tars, None, 24)
    assert found["summary"][:3] == before["summary"]
    assert all(found[name] == before[name] for name in ("model", "generated"))
    brief = found["summary"][3]
    assert (brief["name"], brief["empty"], brief["flagged"]) == ("Brief caption", 3, 3)
    assert [[*row.values()] for row in found["gates"]["rows"]] == [["Brief caption", 19, 0, 0, 1, "flags 1"]]
    names = [[said["name"] for said in example["texts"]] for example in found["examples"]]
    assert sorted(len(of_picture) for of_picture in names) == [3, 3, *[4] * 22]
    assert before["rewritten"] is None
    assert "wrote others" not in build_report(inputs, tmp_path / "plain.html").read_text()


def test_a_caption_is_right_only_if_it_names_all_shapes_and_no_wrong_colour():
    things = (Thing("triangle", "red", 0.2, 0.5, 0.3, 0), Thing("cross", "blue", 0.8, 0.5, 0.3, 0))
    scene = Scene("color_attr", things, "plain", "white", 64, 64, 0)
    assert caption_is_right("long", long_caption(scene), scene)
    assert caption_is_right("short", short_caption(scene), scene)
    assert caption_is_right("short", "On offer: a triangle and a cross", scene)
    assert not caption_is_right("original", "On offer: a triangle and a cross", scene)  # no colours
    for kind in ("original", "long", "short"):
        for false in (
            "a red triangle",
            "a blue triangle and a red cross",
            "two triangles",
            "",
            None,
            "triangles",
        ):
            assert not caption_is_right(kind, false, scene), (kind, false)


def test_costs_add_time_and_take_the_largest_memory(tmp_path):
    for i, (seconds, memory) in enumerate(((10.0, "100.0"), (5.5, "-"), (3.0, "250.5"))):
        (tmp_path / f"{i}.tsv").write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:10\t{memory}\n")
    costs = read_costs({"cache": [tmp_path / f"{i}.tsv" for i in range(3)], "train": []})
    (row,) = costs["rows"]
    assert (row["jobs"], row["seconds"], row["memory_mib"]) == (3, 18.5, 250.5)
    assert [clock(s) for s in (4.2, 59, 185, 7500)] == ["4.2 s", "59 s", "3 min 05 s", "2 h 05 min"]


def test_the_page_tells_where_the_trainings_time_went_and_its_digest_does_not(inputs, tmp_path):
    page = build_report(inputs, tmp_path / "report.html")
    told = Page(page.read_text()).text["cost"]
    assert all(label in told for label in LABELS.values()) and "6 min 40 s" in told and "61 %" in told
    for text in ("96x48", "128.0", "0.300", "160.0", "0.375", "TFLOP/s"):
        assert text in told
    without = build_report(replace(inputs, goodput=None, speeds=None), tmp_path / "without.html")
    assert "steps that count" not in without.read_text()
    assert digest_without_times(page, STAGES) == digest_without_times(without, STAGES)
    wrong = tmp_path / "goodput.json"
    for body in ({"steps": 1.0}, {**dict.fromkeys(LABELS, 1.0), "steps": "<b>"}):
        wrong.write_text(json.dumps(body))
        with pytest.raises(ValueError, match=r"goodput.json: should hold the seconds of steps, waiting"):
            read_goodput(wrong)


def test_a_broken_chain_of_manifests_is_marked(inputs, tmp_path):
    intact = read_chain(inputs.manifests)
    assert all(up["current"] for row in intact for up in row["upstream"])
    other = tmp_path / "manifest.json"
    other.write_text(inputs.manifests["download"].read_text().replace("download", "downloads"))
    broken = {row["stage"]: row for row in read_chain({**inputs.manifests, "download": other})}
    assert broken["score"]["upstream"][0]["current"] is False
    without = {row["stage"]: row for row in read_chain({"filter": inputs.manifests["filter"]})}
    assert without["filter"]["upstream"][0]["current"] is None


def test_the_running_mean_passes_over_unknown_values():
    values = np.array([1.0, np.nan, 3.0, 5.0])
    assert running_mean(values, 2) == pytest.approx([1, 1, 3, 4])
    assert np.isnan(running_mean(np.array([np.nan, 1.0]), 1)[0])
