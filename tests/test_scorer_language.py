"""The scorer `language` tells captions' languages, and says nothing of those that are too short to tell."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from conftest import TinyProject

from darkroom import store
from darkroom.score import score_part
from darkroom.scorers.language import num_letters

CAPTIONS = {
    "ar": "قطة سوداء تنام على الأريكة بجانب النافذة",
    "cs": "Černá kočka spí na pohovce vedle okna",
    "de": "Eine schwarze Katze schläft auf dem Sofa am Fenster",
    "en": "A black cat sleeps on the sofa next to the window",
    "el": "Μια μαύρη γάτα κοιμάται στον καναπέ δίπλα στο παράθυρο",
    "es": "Un gato negro duerme en el sofá junto a la ventana",
    "fi": "Musta kissa nukkuu sohvalla ikkunan vieressä",
    "fr": "Un chat noir dort sur le canapé près de la fenêtre",
    "he": "חתול שחור ישן על הספה ליד החלון",
    "hu": "Egy fekete macska alszik a kanapén az ablak mellett",
    "it": "Un gatto nero dorme sul divano vicino alla finestra",
    "ja": "黒い猫が窓のそばのソファで寝ています",
    "ko": "검은 고양이가 창가 소파에서 자고 있다",
    "nl": "Een zwarte kat slaapt op de bank naast het raam",
    "pl": "Czarny kot śpi na kanapie obok okna",
    "pt": "Um gato preto dorme no sofá ao lado da janela",
    "ru": "Чёрная кошка спит на диване у окна",
    "sv": "En svart katt sover i soffan bredvid fönstret",
    "th": "แมวดำนอนหลับอยู่บนโซฟาข้างหน้าต่าง",
    "tr": "Siyah bir kedi pencerenin yanındaki kanepede uyuyor",
    "uk": "Чорна кішка спить на дивані біля вікна",
    "vi": "Một con mèo đen ngủ trên ghế sofa cạnh cửa sổ",
    "zh": "一只黑猫睡在窗边的沙发上",
}


def languages(folder: Path, captions: list[str | None], **options: Any) -> pl.DataFrame:
    rows = [
        {"uid": f"{row:032x}", "row": row, "status": "ok", "caption": caption}
        for row, caption in enumerate(captions)
    ]
    schema = {"uid": pl.String, "row": pl.Int64, "status": pl.String, "caption": pl.String}
    store.write_table(folder / "part.parquet", pl.DataFrame(rows, schema=schema))
    counts, judges = score_part("language", options, folder / "part.parquet", None, folder / "out.parquet")
    unknown = counts["language"].get("unknown", {})
    assert {"en", "zh"} <= set(judges["py3langid"]["classes"]) and len(judges["py3langid"]["sha256"]) == 64
    found = store.read_table(folder / "out.parquet")
    assert unknown.get("language", 0) == found["language"].null_count()
    return found


@pytest.mark.real
def test_the_language_of_a_sentence_is_told_as_the_package_tells_it(tmp_path: Path) -> None:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    found = languages(tmp_path, list(CAPTIONS.values()))
    assert found["language"].to_list() == list(CAPTIONS)
    plain = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    expected = [plain.classify(caption)[1] for caption in CAPTIONS.values()]
    assert found["language_probability"].to_list() == pytest.approx(expected, abs=1e-4)
    assert min(expected) > 0.4


@pytest.mark.real
def test_a_caption_that_is_not_there_or_too_short_has_no_language(tmp_path: Path) -> None:
    captions = [
        None,
        "",
        "dog",
        "1999-2041 !?",
        "a small dog!",
        "a small brown dog",
        "黒い猫",
        "黒い猫と犬",
        "\0" * 50,
    ]
    found = languages(tmp_path, captions, min_probability=0)["language"].to_list()
    assert found == [None, None, None, None, None, "en", None, "ja", None]
    assert languages(tmp_path, captions, min_letters=3, min_probability=0)["language"].null_count() == 4
    assert languages(tmp_path, captions)["language_probability"].null_count() == 7
    assert languages(tmp_path, [None, None])["language"].to_list() == [None, None]
    assert languages(tmp_path, []).height == 0


@pytest.mark.real
def test_what_is_unsure_has_a_probability_and_no_language_unless_it_is_asked_for(tmp_path: Path) -> None:
    captions = ["A cement mixer.", "An avocado fruit.", CAPTIONS["en"]]
    found = languages(tmp_path, captions)
    assert found["language"].to_list() == [None, None, "en"]
    assert found["language_probability"].null_count() == 0
    likeliest = languages(tmp_path, captions, min_probability=0)
    assert likeliest["language"].null_count() == 0
    assert likeliest["language_probability"].equals(found["language_probability"])
    assert languages(tmp_path, captions, min_probability=1)["language"].null_count() == 3


def test_letters_are_counted_and_those_that_are_words_for_three() -> None:
    assert [num_letters(text) for text in ("a cat, 12", "猫", "ねこ", "кошка", "✓ – 3")] == [4, 3, 6, 5, 0]


def test_a_plan_says_which_package_is_missing_and_how_it_is_installed(
    make_tiny_project: Callable[[str], TinyProject],
) -> None:
    project = make_tiny_project("without-language")
    project.edit("config/datasets/demo.yaml", {"scorers": {"language": {}}})
    project.hide("py3langid")
    output = project.run("snakemake", "-n", "score", check=False)
    assert "config/datasets/demo.yaml: scorers: language needs py3langid, which is not installed" in output
    assert "run `uv pip install -e '.[language]'`" in output and "rule score_part" not in output
