"""Training an autoencoder: the same bytes however often it is stopped, and a folder that others read."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from tiny_autoencoder import CROP_PX, TRAIN, settings, write_pictures

from darkroom.autoencoder.compare import Compared, Contestant, compare
from darkroom.autoencoder.pictures import PictureFiles, Plan, cut, split
from darkroom.autoencoder.stage import AutoencoderInputs, train_autoencoder, training_key
from darkroom.components.base import Component
from darkroom.components.vae import encode_latents, load_vae
from darkroom.store import sha256_file, sha256_folder
from darkroom.train.signals import STOPPED_EXIT_CODE, Stopped

DEMO_VAE = Component(kind="vae", path=str(Path(__file__).parents[1] / "src/darkroom_demo/components/vae"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> PictureFiles:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def run(
    files: PictureFiles, folder: Path, log: Callable[[str], None] = lambda line: None, **changes: Any
) -> dict[str, Any]:
    inputs = AutoencoderInputs(files, settings(**changes), {"demo-vae": DEMO_VAE})
    return train_autoencoder(
        inputs, folder / "run", folder / "model", folder / "history.parquet", device="cpu", log=log
    )


@pytest.fixture(scope="module")
def trained(files: PictureFiles, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("trained")
    return folder, run(files, folder)


def at_step(step: int, act: Callable[[], None]) -> Callable[[str], None]:
    """A log that does something when a step is told."""
    return lambda line: act() if line.startswith(f"autoencoder: step {step}/") else None


def crash() -> None:
    raise KeyError("as if the power went")


# After the signal a checkpoint is written; the crash after step 5 repeats steps 4 and 5.
@pytest.mark.parametrize(
    ("act", "ends"),
    [(lambda: signal.raise_signal(signal.SIGTERM), Stopped), (crash, KeyError)],
    ids=["signal", "crash"],
)
def test_a_training_that_was_stopped_leaves_the_bytes_of_one_that_was_not(
    files: PictureFiles,
    trained: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    act: Callable[[], None],
    ends: type[BaseException],
) -> None:
    with pytest.raises(ends) as error:
        run(files, tmp_path, at_step(5, act))
    if ends is Stopped:
        assert error.value.code == STOPPED_EXIT_CODE
    assert not (tmp_path / "model").exists()
    said: list[str] = []
    counts = run(files, tmp_path, said.append)
    assert any("goes on after step" in line for line in said)
    folder, wanted = trained
    assert counts == wanted
    for name in ("model", "history.parquet"):
        digest = sha256_folder if name == "model" else sha256_file
        assert digest(tmp_path / name) == digest(folder / name), name


def test_the_folder_loads_in_diffusers_and_scales_latents_to_a_standard_deviation_of_1(
    files: PictureFiles, trained: tuple[Path, dict[str, Any]]
) -> None:
    folder, counts = trained
    vae = AutoencoderKL.from_pretrained(folder / "model")
    assert (folder / "model/diffusion_pytorch_model.safetensors").is_file()
    assert counts["num_parameters"] == sum(p.numel() for p in vae.parameters())
    shown, _, _ = split(files, 0.2, CROP_PX)
    (batch,) = shown.middles(len(shown))
    images = torch.from_numpy(batch.pixels).float() / 127.5 - 1
    latents = encode_latents(load_vae(Component(kind="vae", path=str(folder / "model"))), images)
    assert latents.std().item() == pytest.approx(1, abs=0.01)
    assert latents.mean().item() == pytest.approx(0, abs=0.01)
    assert str(folder) not in (folder / "model/config.json").read_text()


def test_the_history_tells_each_term_where_it_is_there(trained: tuple[Path, dict[str, Any]]) -> None:
    history = pl.read_parquet(trained[0] / "history.parquet")
    assert history["step"].to_list() == list(range(1, 9)) and history["perceptual"].null_count() == 8
    # The discriminator begins after 4 steps.
    assert history["adversarial"].is_null().to_list() == [True] * 4 + [False] * 4
    assert history["discriminator"].is_null().to_list() == [True] * 4 + [False] * 4
    assert history["reconstruction"][-1] < history["reconstruction"][0]
    late = history[4:]
    terms = late["reconstruction"] + 1e-6 * late["kl"] + 0.5 * late["adaptive_weight"] * late["adversarial"]
    assert np.allclose(late["loss"], terms, rtol=1e-5)


def test_one_that_goes_on_from_another_begins_with_its_reconstructions(
    files: PictureFiles, tmp_path: Path
) -> None:
    train = {**TRAIN, "num_steps": 1, "learning_rate": 1e-9, "optimizer": "adamw"}
    run(files, tmp_path, initial="demo-vae", network=None, loss={}, train=train)
    mine, other = load_vae(Component(kind="vae", path=str(tmp_path / "model"))), load_vae(DEMO_VAE)
    for (name, one), two in zip(mine.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=0, msg=name)
    # The latents' scale is that of these pictures.
    assert mine.config["scaling_factor"] != other.config["scaling_factor"]


def test_held_out_pictures_are_chosen_by_uid_and_never_shown(files: PictureFiles) -> None:
    shown, out, num_small = split(files, 0.2, CROP_PX)
    one, two = set(shown.rows["uid"]), set(out.rows["uid"])
    assert not one & two and len(one) + len(two) + num_small == 36 and num_small == 0
    half = PictureFiles(files.tables[:1], files.tars[:1], files.selections[:1])
    shown_of_half, out_of_half, _ = split(half, 0.2, CROP_PX)
    assert set(shown_of_half.rows["uid"]) <= one and set(out_of_half.rows["uid"]) <= two
    # Of copies the first one decides.
    first, copy = sorted(one)[0], sorted(two)[0]
    copies = PictureFiles(files.tables, files.tars, files.selections, [(copy, first)])
    assert copy in set(split(copies, 0.2, CROP_PX)[0].rows["uid"])
    plan = Plan(0, 4, len(shown))
    visits = np.concatenate([plan.visits(step)[0] for step in range(3 * len(shown))])
    assert np.array_equal(np.bincount(visits, minlength=len(shown)), np.full(len(shown), 12))


def test_small_pictures_are_left_out_and_counted_and_a_share_that_holds_out_none_is_refused(
    files: PictureFiles,
) -> None:
    rows = pl.concat([pl.read_parquet(path) for path in files.tables]).filter(pl.col("row") % 9 != 8)
    small = rows.filter(pl.min_horizontal("width", "height") < 20)
    shown, out, num_small = split(files, 0.2, 20)
    assert num_small == len(small) > 0 and len(shown) + len(out) == 36 - num_small
    with pytest.raises(ValueError, match=r"held_out.share 1e-06 holds out none of the 36 pictures"):
        split(files, 1e-6, CROP_PX)


def test_a_square_covers_its_picture_and_moves_along_the_longer_side() -> None:
    row = {"width": 100, "height": 50}
    left, middle, right = (cut(row, 32, share) for share in (0.0, 0.5, 1.0))
    assert (middle["resized_width"], middle["resized_height"]) == (64, 32)
    assert (left["crop_left"], middle["crop_left"], right["crop_left"]) == (0, 16, 32)
    assert left["crop_top"] == right["crop_top"] == 0


def test_pictures_that_cannot_be_read_are_left_out_of_their_batch_and_counted(tmp_path: Path) -> None:
    files = write_pictures(tmp_path)
    shown, _, _ = split(files, 0.2, CROP_PX)
    row = shown.rows.row(0, named=True)
    with Path(files.tars[row["part"]]).open("r+b") as tar:
        tar.seek(row["offset"])
        tar.write(bytes(row["size"]))
    counts = run(files, tmp_path)
    seen = pl.read_parquet(tmp_path / "history.parquet")["pictures"]
    epochs = 8 * 4 / len(shown)
    assert counts["unreadable"] == 1 and seen.sum() == counts["pictures_shown"]
    assert 8 * 4 - epochs - 1 <= seen.sum() < 8 * 4


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"loss": {"adversarial": {"num_layers": 3}}},
            r"num_layers: 3 leave nothing of 16 px; write a smaller",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_step(
    files: PictureFiles, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        run(files, tmp_path, **changes)


def test_several_ranks_are_refused(
    files: PictureFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="2 ranks are started, and one process trains it"):
        run(files, tmp_path)


def test_the_key_is_of_what_changes_the_weights_alone() -> None:
    values = {"train": dict(TRAIN), "seed": 0}
    key = training_key(values, {"filter": "a"})
    logged = {**values, "train": {**TRAIN, "log_every_steps": 7, "checkpoint_every_steps": 2}}
    assert training_key(logged, {"filter": "a"}) == key
    assert training_key(values, {"filter": "b"}) != key
    assert training_key({**values, "seed": 1}, {"filter": "a"}) != key


def test_a_comparison_tells_scores_latents_and_shows_both(
    files: PictureFiles, trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    mine = Contestant("mine", Component(kind="vae", path=str(trained[0] / "model")))
    out = Compared(*(tmp_path / name for name in ("scores.csv", "latents.csv", "sheet.png")))
    told = {"crop_px": CROP_PX, "held_out": {"share": 0.2, "max_pictures": 5}, "loss": {"perceptual": None}}
    counts = compare(files, told, (mine, Contestant("demo-vae", DEMO_VAE)), {}, out, device="cpu")
    assert counts == {"pictures": 5, "unreadable": 0}
    scores = pl.read_csv(out.scores)
    assert scores["autoencoder"].to_list() == ["mine", "demo-vae"] and scores["perceptual"].null_count() == 2
    # Minutes of training on ten thousands of pictures beside a few steps.
    assert scores["psnr"][1] > scores["psnr"][0] and scores["l1"][1] < scores["l1"][0]
    latents = pl.read_csv(out.latents)
    assert latents["channel"].to_list() == [*range(3), *range(16)]
    with Image.open(out.sheet) as sheet:
        assert sheet.format == "PNG" and not sheet.info
    again = Compared(*(tmp_path / f"again-{name}" for name in ("scores.csv", "latents.csv", "sheet.png")))
    compare(files, told, (mine, Contestant("demo-vae", DEMO_VAE)), {}, again, device="cpu")
    for one, other in ((out.scores, again.scores), (out.latents, again.latents), (out.sheet, again.sheet)):
        assert sha256_file(one) == sha256_file(other)
