"""`darkroom audit`: all scores with their thresholds, a page to label a sample, and what the labels say."""

import csv
import hashlib
import json
import re
from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path

import polars as pl
import pytest
import yaml
from audit_inputs import DAMAGED, MISSING, NUM_ROWS, WITHOUT_VALUE, write_project
from browser import in_chromium, needs_browser
from doc_pages import DOCS, commands
from PIL import Image
from report_inputs import HOSTILE
from typer.testing import CliRunner

from darkroom import store
from darkroom.audit.label_page import json_in_html
from darkroom.cli import app
from darkroom.config import load_project
from darkroom.stages import stage_settings

# An attribute that loads something that is not in the page.
OUTSIDE = re.compile(r"""(src|href)\s*=\s*["']?(?!data:)[a-z]+:""")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_project(tmp_path)


def audit(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["audit", "demo", *map(str, arguments)])
    assert result.exit_code == code, result.output + str(result.exception)
    return result.output


def data_of(page: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="audit">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def label(path: Path, labels: dict[str, str], **columns: str) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["uid", *columns, "label"])
        writer.writerows([uid, *columns.values(), given] for uid, given in labels.items())
    return path


def test_the_commands_of_the_docs_show_scores_draw_a_sample_and_judge_its_labels(project: Path) -> None:
    (overview,), (draw,), (judge,) = commands(DOCS / "audit.md")
    assert CliRunner().invoke(app, overview.split()[1:]).exit_code == 0
    assert CliRunner().invoke(app, draw.split()[1:]).exit_code == 0
    sample = pl.read_parquet("results/audits/demo/pwatermark/sample.parquet")
    assert sample.height == NUM_ROWS - 1  # all that have a value, the docs ask for more
    scores = sample.select("uid", "score").iter_rows()
    label(Path("labels.csv"), {uid: "yes" if score > 0.4 else "no" for uid, score in scores})
    result = CliRunner().invoke(app, judge.split()[1:])
    assert result.exit_code == 0, result.output
    found = float(re.search(r"by the interval's lower end: threshold (\S+);", result.output)[1])
    table = pl.read_csv("results/audits/demo/pwatermark/precision.csv")
    # Where all is labelled, precision is the share of yes among those with this score and higher ones.
    shares = [(t, sample.filter(pl.col("score") >= t)["score"].gt(0.4).mean()) for t in table["threshold"]]
    assert found == min(t for t, share in shares if share >= 0.95)
    assert table["precision"].to_list() == pytest.approx([share for _, share in shares])
    assert "keep: pwatermark" in result.output
    page = Path("results/audits/demo/pwatermark/precision.html").read_text()
    assert page.count("<tr") == 1 + 10 + 1 + table.height and not OUTSIDE.search(page)


def test_the_page_holds_the_sample_its_pictures_and_one_script_that_its_policy_names(project: Path) -> None:
    told = audit("--scorer", "watermark", "--sample", 149)
    assert "149 drawn of 149 pictures with a value, from 10 strata; 1 have none" in told
    assert "1 of the pictures drawn cannot be read" in told
    page = Path("results/audits/demo/watermark/audit.html").read_text()
    data = data_of(page)
    sample = pl.read_parquet("results/audits/demo/watermark/sample.parquet")
    assert [each["uid"] for each in data["pictures"]] == sample["uid"].to_list()
    assert [each["score"] for each in data["pictures"]] == sample["score"].to_list()
    assert sorted(sample["row"]) == [row for row in range(NUM_ROWS) if row != WITHOUT_VALUE]
    for row, told_of in zip(sample["row"], data["pictures"], strict=True):
        assert told_of["caption"] == (HOSTILE if row == 0 else f"caption {row}")
        assert (told_of["picture"] == "") == (row == DAMAGED)
        if row == MISSING:  # fetched in a later round, so it lies in another tar
            picture = Image.open(BytesIO(b64decode(told_of["picture"].partition(",")[2])))
            assert picture.size == (80, 64) and picture.getpixel((40, 30)) == (row, row, row)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    (digest,) = re.findall(r"script-src 'sha256-([^']+)'", page)
    assert [b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts] == [digest]
    assert "<script>alert" not in page and page.count("<script") == 2
    assert not OUTSIDE.search(page)
    before = page
    audit("--scorer", "watermark", "--sample", 149)
    assert Path("results/audits/demo/watermark/audit.html").read_text() == before


def test_what_the_data_say_ends_no_script() -> None:
    text = json_in_html({"caption": "</script><!--<script>" + HOSTILE + "\u2028&"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text)["caption"].startswith("</script><!--<script>")


def test_every_score_is_shown_with_its_thresholds_and_the_pictures_nearest_to_them(project: Path) -> None:
    told = audit()
    num_above = sum((row / NUM_ROWS) ** 3 > 0.5 for row in range(NUM_ROWS))
    assert "watermark: 149 of 150 pictures have a value" in told
    assert f"pwatermark is above 0.5: {num_above} dropped, {149 - num_above} kept" in told
    page = Path("results/audits/demo/overview.html").read_text()
    (section,) = re.findall(r"<h2>pwatermark</h2>(.*?)</section>", page, re.DOTALL)
    kept, dropped = re.findall(r'<div class="shots">(.*?)</div>', section, re.DOTALL)
    first = min(row for row in range(NUM_ROWS) if (row / NUM_ROWS) ** 3 > 0.5)
    assert re.findall(r"<span>caption (\d+)</span>", kept) == [str(first - k) for k in range(1, 9)]
    assert re.findall(r"<span>caption (\d+)</span>", dropped) == [str(first + k) for k in range(8)]
    assert "1 without a value are kept" in section
    assert page.count("<svg") == 5  # `duplicate` is yes or no, and `first_row` has no value
    assert "<script" not in page and not OUTSIDE.search(page)


def test_scores_that_are_words_or_not_finite_are_shown_too(project: Path) -> None:
    config = project / "config/datasets/demo.yaml"
    values = yaml.safe_load(config.read_text())
    values["keep"] = [
        {"column": "caption", "matches": "caption .*1", "name": "ones"},
        {"column": "punsafe", "max": 0.5},
    ]
    config.write_text(yaml.safe_dump(values))
    for table in project.glob("results/datasets/demo/download/*.parquet"):
        row = pl.col("row")
        odd = (
            pl.when(row == 3)
            .then(float("nan"))
            .when(row == 4)
            .then(float("inf"))
            .otherwise(pl.col("punsafe"))
        )
        pl.read_parquet(table).with_columns(punsafe=odd).write_parquet(table)
    told = audit()
    with_one = sum("1" in f"{row}" for row in range(1, NUM_ROWS))
    assert f"caption does not match 'caption .*1': {NUM_ROWS - with_one} dropped, {with_one} kept" in told
    assert (
        "punsafe is above 0.5: 2 dropped, 148 kept" in told
    )  # as the filter has it: NaN is above all numbers
    page = Path("results/audits/demo/overview.html").read_text()
    (section,) = re.findall(r"<h2>caption</h2>(.*?)</section>", page, re.DOTALL)
    assert f"<span>{NUM_ROWS - 12} more</span>" in section and "a random few" in section
    assert "&lt;script&gt;alert" in section and "<script" not in page


def test_hostile_words_of_the_list_are_escaped_on_every_page(project: Path) -> None:
    table = project / "results/datasets/demo/download/part-00000.parquet"
    rows = pl.read_parquet(table).with_columns(caption=pl.lit(HOSTILE))
    rows.write_parquet(table)
    audit()
    page = Path("results/audits/demo/overview.html").read_text()
    assert "&lt;script&gt;alert" in page and "<script" not in page and '<img src="http' not in page
    audit("--column", "pwatermark")
    uid = pl.read_parquet("results/audits/demo/pwatermark/sample.parquet")["uid"][0]
    labels = label(Path("l.csv"), {uid: "yes", HOSTILE: "no", "0" * 31 + "z": HOSTILE})
    audit("--column", "pwatermark", "--labels", labels)
    page = Path("results/audits/demo/pwatermark/precision.html").read_text()
    assert "&lt;script&gt;" in page and "<script" not in page


def test_labels_that_do_not_count_are_counted_and_told(project: Path) -> None:
    audit("--column", "pwatermark", "--sample", 40)
    sample = pl.read_parquet("results/audits/demo/pwatermark/sample.parquet")
    table = pl.concat([pl.read_parquet(p) for p in project.glob("results/datasets/demo/download/*.parquet")])
    another = next(uid for uid in table["uid"] if uid not in set(sample["uid"]))
    rows = [f"{uid},{score},no" for uid, score in sample.select("uid", "score").head(30).iter_rows()]
    more = sample["uid"][30:]
    rows += [
        f"{more[0]},,YES",
        f"{more[1]},,unsure",
        f"{more[2]},,",
        f"{more[3]},0.123,yes",
        f"{more[4]},,maybe",
    ]
    rows += [f"{more[0]},,no", f"{another},,yes", f"{'0' * 31}f,,yes", "\x1b[2J,,yes", f'"{more[5]}",nan,yes']
    rows += ["uid,score,label", f"{more[0]},,no"]
    Path("l.csv").write_text("\ufeffuid,score,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    told = audit("--column", "pwatermark", "--labels", "l.csv")
    for line in (
        *(
            "labelled: 33",
            "unsure: 1",
            "unlabelled: 6",
            "given twice with another answer: 1 (line 37)",
            "given twice: 1 (line 43)",
            "no label: 1 (line 36: 'maybe')",
        ),
        f"of another audit: 1 ({another})",
        f"unknown uid: 2 (line 40: '\\x1b[2J'; {'0' * 31}f)",
        "score has changed: 2 (line 35; line 41)",
    ):
        assert line in told.splitlines(), (line, told)
    assert "\x1b" not in told


def test_scores_of_other_settings_than_the_configurations_are_noted(project: Path) -> None:
    manifest = project / "results/datasets/demo/score/manifest.json"
    config = load_project("demo")
    store.write_manifest(manifest, stage="score", params=stage_settings(config, "score"))
    assert "note:" not in audit()
    store.write_manifest(manifest, stage="score", params={**stage_settings(config, "score"), "scorers": {}})
    assert f"note: {manifest.relative_to(project)}: was made with other settings" in audit(
        "--column", "punsafe"
    )


@needs_browser
def test_in_a_browser_keys_label_and_the_table_is_saved(project: Path) -> None:
    audit("--column", "pwatermark", "--sample", 20)
    path = project / "results/audits/demo/pwatermark/audit.html"
    page, uids = path.read_text(), [each["uid"] for each in data_of(path.read_text())["pictures"]]
    # As it is: its policy lets its own script run, and that shows the first picture.
    dom = in_chromium(path)
    assert "picture 1 of 20; answered 0: 0 yes, 0 no, 0 unsure" in dom
    keys = ["y", "N", "u", "ArrowLeft", "n", "ArrowRight", "b", "q", "Backspace", "u"]
    script = (
        "URL.createObjectURL = (blob) => { blob.text().then((text) => { document.title = text; });"
        " return 'data:,'; };"
        f"for (const key of {json.dumps(keys)}) document.dispatchEvent(new KeyboardEvent('keydown', {{key}}));"
        "document.getElementById('save').click();"
    )
    page = re.sub(r"<meta http-equiv.*?>", "", page).replace("</body>", f"<script>{script}</script></body>")
    path.write_text(page)
    dom = in_chromium(path)
    assert "picture 4 of 20; answered 3: 1 yes, 1 no, 1 unsure" in dom
    (saved,) = re.findall(r"<title>(.*?)</title>", dom, re.DOTALL)
    rows = list(csv.DictReader(saved.splitlines()))
    assert [row["uid"] for row in rows] == uids
    assert [row["label"] for row in rows[:4]] == ["yes", "no", "unsure", ""]
    sample = pl.read_parquet(path.with_name("sample.parquet"))
    for name in ("score", "weight"):
        assert [float(row[name]) for row in rows] == sample[name].to_list()
    # What the browser has kept is there when the page is loaded again, and the first without an answer is shown.
    again = script.replace(
        "document.getElementById('save').click();", "location.hash = 'again'; location.reload();"
    )
    path.write_text(page.replace(script, f"if (location.hash !== '#again') {{ {again} }}"))
    dom = in_chromium(path)
    assert "picture 4 of 20; answered 3: 1 yes, 1 no, 1 unsure" in dom


def test_a_larger_sample_holds_the_smaller_one_so_that_labels_stay(project: Path) -> None:
    audit("--column", "pwatermark", "--sample", 30)
    few = pl.read_parquet("results/audits/demo/pwatermark/sample.parquet")
    audit("--column", "pwatermark", "--sample", 70)
    more = pl.read_parquet("results/audits/demo/pwatermark/sample.parquet")
    assert set(few["uid"]) < set(more["uid"]) and more.height == 70
    audit("--column", "pwatermark", "--sample", 30, "--seed", 1)
    assert set(pl.read_parquet("results/audits/demo/pwatermark/sample.parquet")["uid"]) != set(few["uid"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scorer", "faces"], "--scorer faces: the dataset demo does not list it in `scorers`"),
        (["--scorer", "fases"], "does not list it in `scorers`; there are size, "),
        (["--scorer", "size"], "--scorer size: makes min_side_px, aspect_ratio; choose with --column"),
        (["--scorer", "size", "--column", "watermark"], "the scorer size makes min_side_px, aspect_ratio"),
        (
            ["--column", "nothing"],
            "--column nothing: neither a scorer that demo lists nor its list has it; there are",
        ),
        (["--column", "caption"], "--column caption: holds text; only numbers and booleans have thresholds"),
        (["--column", "opt_outs"], "--column opt_outs: holds List(String)"),
        (["--labels", "l.csv"], "--labels: of which score? Give --scorer or --column too"),
        (["--column", "punsafe", "--labels", "l.csv"], "punsafe: no audit lies here; draw its sample first"),
        (["--column", "pwatermark", "--labels", "gone.csv"], "gone.csv"),
        (
            ["--column", "pwatermark", "--labels", "l.csv"],
            "l.csv: no column 'uid'; it has a, b; the page saves uid",
        ),
        (
            ["--column", "pwatermark", "--labels", "none.csv"],
            "none.csv: labels no picture of this audit with yes",
        ),
    ],
)
def test_what_cannot_be_audited_is_refused_by_name(project: Path, arguments: list[str], message: str) -> None:
    Path("l.csv").write_text("a,b\n1,2\n")
    Path("none.csv").write_text("uid,label\n" + "f" * 32 + ",yes\n")
    audit("--column", "pwatermark")
    assert message in audit(*arguments, code=2)


def test_what_is_not_made_yet_is_told_with_what_makes_it(project: Path) -> None:
    (project / "results/datasets/demo/score/part-00001.watermark.parquet").unlink()
    assert "part-00001.watermark.parquet: missing; run `snakemake score`" in audit(
        "--scorer", "watermark", code=2
    )
    (project / "results/datasets/demo/download/manifest.json").unlink()
    assert "manifest.json: missing; run `snakemake download`" in audit(code=2)
