"""The network in a GGUF file: diffusers reads it back, within what its types round."""

# ruff: noqa: F811 (tests take the fixtures that are imported)

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from diffusers import (
    GGUFQuantizationConfig,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    UNet2DConditionModel,
)
from format_models import pipeline_of
from sample_folders import ours  # noqa: F401 (a fixture)
from typer.testing import CliRunner

from darkroom.cli import app
from darkroom.export import export_file
from darkroom.formats import gguf as form
from darkroom.formats.diffusers import export_pipeline, load_pipeline
from darkroom.formats.single_file import NETWORK

# Largest error of a number, as a share of the largest magnitude among its block of 32.
ERRORS = {"q8_0": 1 / 254, "q5_0": 1 / 16, "q5_1": 1 / 31, "q4_0": 1 / 8, "q4_1": 1 / 15}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """`models(kind)`: the exported folder of a random model with matrices that can be quantized."""
    done = {}

    def get(kind):
        if kind not in done:
            folder = tmp_path_factory.mktemp(kind)
            pipeline = pipeline_of(kind, folder)
            if kind == "sd3":
                config = dict(pipeline.transformer.config)
                torch.manual_seed(9)
                pipeline.register_modules(
                    transformer=SD3Transformer2DModel.from_config(
                        config | {"attention_head_dim": 32, "caption_projection_dim": 64}
                    )
                )
            done[kind] = export_pipeline(pipeline, folder / "model")
        return done[kind]

    return get


def read(path: Path) -> gguf.GGUFReader:
    return gguf.GGUFReader(path)


def exact(folder: Path, out: Path) -> dict[str, np.ndarray]:
    """The network's tensors by the names of the original, in float32."""
    from safetensors.numpy import load_file

    path, _ = export_file(str(folder), "single_file", out, "float32", replace=True)
    whole = load_file(path)
    return {name.removeprefix(NETWORK): t for name, t in whole.items() if name.startswith(NETWORK)}


@pytest.mark.parametrize("dtype", form.SPEC.dtypes)
def test_every_tensor_is_there_within_what_its_type_rounds(models, tmp_path, dtype):
    expected = exact(models("sd3"), tmp_path / "one.safetensors")
    path, _ = export_file(str(models("sd3")), "gguf", tmp_path / "out.gguf", dtype)
    found = {t.name: t for t in read(path).tensors}
    assert found.keys() == expected.keys()
    kinds = set()
    for name, tensor in found.items():
        value = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(expected[name].shape)
        kinds.add(tensor.tensor_type.name)
        wanted, error = expected[name], np.abs(value - expected[name])
        if tensor.tensor_type.name.lower() in ERRORS:
            blocks = np.abs(wanted.reshape(-1, 32)).max(axis=1, keepdims=True)
            spread = np.ptp(wanted.reshape(-1, 32), axis=1, keepdims=True)
            scale = spread if dtype.endswith("_1") else blocks
            # The scale itself has 16 bits.
            assert (error.reshape(-1, 32) <= scale * (ERRORS[dtype] + 2e-3)).all(), name
        else:
            relative = {"F32": 0, "F16": 2**-10, "BF16": 2**-8}[tensor.tensor_type.name]
            assert (error <= relative * np.abs(wanted) + 1e-7).all(), name
    assert dtype.upper() in kinds or dtype in form._TYPES


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl", "sd3", "flux"])
def test_vectors_and_what_is_outside_the_blocks_stay_precise(models, tmp_path, kind):
    path, notes = export_file(str(models(kind)), "gguf", tmp_path / "out.gguf", "q4_0")
    reader = read(path)
    for tensor in reader.tensors:
        if len(tensor.shape) == 1 or "blocks." not in tensor.name:
            assert tensor.tensor_type.name in ("F32", "F16"), tensor.name
    architecture = reader.get_field("general.architecture").contents()
    assert architecture == {"sd1": "sd1", "sd2": "sd1"}.get(kind, kind)
    assert any("of the weights are kept in 16 or 32 bits" in note for note in notes)


def test_diffusers_draws_with_it_what_it_draws_with_the_folder(models, tmp_path):
    folder = models("sd3")
    path, _ = export_file(str(folder), "gguf", tmp_path / "out.gguf", "q8_0")
    pipeline = load_pipeline(folder)
    options = {
        "prompt_embeds": torch.randn(1, 12, 32, generator=torch.Generator().manual_seed(1)),
        "pooled_prompt_embeds": torch.randn(1, 28, generator=torch.Generator().manual_seed(2)),
        "height": 32, "width": 32, "num_inference_steps": 4, "guidance_scale": 1.0, "output_type": "latent",
    }  # fmt: skip

    def draw(drawn_by: StableDiffusion3Pipeline) -> torch.Tensor:
        return drawn_by(**options, generator=torch.Generator().manual_seed(0)).images

    expected = draw(pipeline)
    read_back = SD3Transformer2DModel.from_single_file(
        str(path), config=str(folder / "transformer"), local_files_only=True,
        quantization_config=GGUFQuantizationConfig(compute_dtype=torch.float32),
    )  # fmt: skip
    pipeline.register_modules(transformer=read_back)
    error = (draw(pipeline) - expected).abs().max() / expected.abs().max()
    assert 0 < error < 0.01


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_diffusers_reads_a_unet_back_from_it(models, tmp_path, kind):
    folder = models(kind) / "unet"
    path, _ = export_file(str(models(kind)), "gguf", tmp_path / "out.gguf", "float32")
    quantized = GGUFQuantizationConfig(compute_dtype=torch.float32)
    found = UNet2DConditionModel.from_single_file(
        str(path), config=str(folder), local_files_only=True, quantization_config=quantized
    ).state_dict()
    expected = UNet2DConditionModel.from_pretrained(folder).state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_same_model_gives_the_same_bytes_and_a_file_that_is_there_stays(models, tmp_path):
    first, second = (
        export_file(str(models("sd3")), "gguf", tmp_path / f"{i}.gguf")[0].read_bytes() for i in (1, 2)
    )
    assert first == second
    with pytest.raises(ValueError, match="is there already"):
        export_file(str(models("sd3")), "gguf", tmp_path / "1.gguf", "q4_0")
    assert (tmp_path / "1.gguf").read_bytes() == first


def test_the_command_says_what_it_wrote_and_takes_8_bits_by_itself(models, tmp_path):
    command = ["export", str(models("sd3")), "--format", "gguf", "--out", str(tmp_path / "out.gguf")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0
    assert "MB, q8_0" in done.output


@pytest.mark.parametrize(
    ("wanted", "out", "dtype", "message"),
    [
        ("gguf", "out.safetensors", "q8_0", "should end with .gguf"),
        ("single_file", "out.gguf", "float16", "should end with .safetensors"),
        ("single_file", "out.safetensors", "q8_0", "q8_0 is none of float16, bfloat16, float32"),
        ("gguf", "out.gguf", "q6_k", "q6_k is none of q8_0"),
    ],
)  # fmt: skip
def test_names_and_dtypes_that_do_not_fit_are_refused(models, tmp_path, wanted, out, dtype, message):
    with pytest.raises(ValueError, match=message):
        export_file(str(models("sd3")), wanted, tmp_path / out, dtype)
    assert not (tmp_path / out).exists()


def test_a_network_of_darkrooms_own_is_refused_with_what_can_hold_it(ours, tmp_path):
    with pytest.raises(ValueError, match=r"gguf holds .*: its diffusers folder is what holds it"):
        export_file(str(ours), "gguf", tmp_path / "out.gguf")


def test_without_the_package_it_says_what_to_install(models, tmp_path, monkeypatch):
    monkeypatch.setattr("darkroom.settings.extras.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"--format gguf needs gguf, .*\[gguf\]"):
        export_file(str(models("sd3")), "gguf", tmp_path / "out.gguf")
