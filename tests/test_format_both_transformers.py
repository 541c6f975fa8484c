"""Exported text encoders and tokenizers are in the form that transformers 4 reads, and 5 reads them as before.

That version 4 draws the same with whole exports is in `tests/test_families.py`.
"""

import json

import pytest
import torch
import transformers
from safetensors import safe_open
from tiny_encoders import WORDS, write_clip_text, write_gemma, write_modernbert

from darkroom.formats.diffusers import load_part, save_part

TEXTS = ["a red circle", "Two BLUE squares, and a star!", ""]


def saved(part, folder):
    """(the folder, the part as it is read again)"""
    save_part(part, folder)
    config = folder / ("config.json" if hasattr(part, "forward") else "tokenizer_config.json")
    return json.loads(config.read_text()), load_part(folder, "transformers", type(part).__name__)


def test_a_text_tower_without_a_projection_has_the_names_of_the_published_ones(tmp_path):
    model = transformers.CLIPTextModel.from_pretrained(write_clip_text(tmp_path / "clip", 16, None)).eval()
    _, again = saved(model, tmp_path / "saved")
    with safe_open(tmp_path / "saved/model.safetensors", "pt") as file:
        assert all(name.startswith("text_model.") for name in file.keys())  # noqa: SIM118
    ids = torch.tensor([[3, 5, 7]])
    assert torch.equal(again(ids).last_hidden_state, model(ids).last_hidden_state)


def test_byte_pairs_lie_in_the_two_files_and_these_alone_give_the_same_tokens(tmp_path):
    tokenizer = transformers.CLIPTokenizer.from_pretrained(write_clip_text(tmp_path / "clip", 16, None))
    config, again = saved(tokenizer, tmp_path / "saved")
    assert config["tokenizer_class"] == "CLIPTokenizer" and again(TEXTS) == tokenizer(TEXTS)
    (tmp_path / "saved/tokenizer.json").unlink()
    assert transformers.CLIPTokenizer.from_pretrained(tmp_path / "saved")(TEXTS) == tokenizer(TEXTS)
    assert (tmp_path / "saved/merges.txt").read_text() == (tmp_path / "clip/merges.txt").read_text()


def test_other_tokenizers_have_the_class_that_reads_one_file_in_both_versions(tmp_path):
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), *((f"▁{word}", -2.0) for word in WORDS)]
    tokenizer = transformers.T5Tokenizer(vocab=pieces, extra_ids=2)
    config, again = saved(tokenizer, tmp_path / "saved")
    assert config["tokenizer_class"] == "T5TokenizerFast"
    assert not isinstance(config.get("extra_special_tokens"), list)
    assert config["additional_special_tokens"] == tokenizer.extra_special_tokens
    text = [f"{text} <extra_id_1>" for text in TEXTS]
    assert again(text) == tokenizer(text) and again.extra_special_tokens == tokenizer.extra_special_tokens
    plain = transformers.AutoTokenizer.from_pretrained(write_gemma(tmp_path / "gemma", 16))
    config, again = saved(plain, tmp_path / "plain")
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast" and again(TEXTS) == plain(TEXTS)


@pytest.mark.parametrize(
    ("write", "bases", "old"),
    [
        (write_gemma, 5e5, {"rope_theta": 5e5}),
        (write_modernbert, (4e4, 5e5), {"global_rope_theta": 4e4, "local_rope_theta": 5e5}),
    ],
)
def test_bases_of_rotary_positions_stand_under_the_keys_of_both_versions(tmp_path, write, bases, old):
    model = transformers.AutoModel.from_pretrained(write(tmp_path / "encoder", 24))
    parameters = model.config.rope_parameters
    if isinstance(bases, tuple):
        for kind, base in zip(("full_attention", "sliding_attention"), bases, strict=True):
            parameters[kind]["rope_theta"] = base
    else:
        parameters["rope_theta"] = bases
    config, again = saved(model, tmp_path / "saved")
    assert {key: config[key] for key in old} == old
    assert again.config.rope_parameters == parameters
