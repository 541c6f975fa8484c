"""Every family, with adapters too: in shards, or computing activations again, it has one rank's losses."""

import copy
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from family_cases import AGAIN, CASES
from family_world import cached, settings_of, world  # noqa: F401 (a fixture)
from ranks import start_ranks
from train_ranks import take_seen, whole

from darkroom.config.model import read_model
from darkroom.models.families import build_denoiser
from darkroom.train.checkpoint import checkpoint_folder, newest_checkpoint, read_checkpoint
from darkroom.train.data import LatentCache
from darkroom.train.distributed import Ranks, find_ranks
from darkroom.train.rendezvous import process_group
from darkroom.train.seen import RECORD_SAMPLES
from darkroom.train.trainer import Trainer
from darkroom.train.training import Training, TrainingRun

# Seconds of work for each of 8 models.
pytestmark = pytest.mark.slow

NUM_STEPS, NUM_AGAIN = 20, 4
# Name -> parallelism, whether activations are computed again, number of steps.
LAYOUTS = {
    "fsdp": ("fsdp", False, NUM_STEPS),
    "fsdp-again": ("fsdp", True, NUM_AGAIN),
    "ddp-again": ("ddp", True, NUM_AGAIN),
}


def model_of(case, is_again):
    family, section, _ = CASES[case]
    return read_model({"family": family, **section, **dict.fromkeys(AGAIN[family], is_again)})


def layouts_of(case):
    return LAYOUTS if case in AGAIN else {"fsdp": LAYOUTS["fsdp"]}


def train_case(case, inputs, run_dir, ranks, parallelism="ddp", is_again=False, num_steps=NUM_STEPS):
    cache, model = LatentCache(*inputs), model_of(case, is_again)
    trained = build_denoiser(model, cache.sizes, seed=0)
    with torch.no_grad():
        for name, weight in trained.named_parameters():
            # Adapters learn nothing behind the zeros that a network from scratch starts with.
            if "lora" not in name and not weight.any():
                torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(0))
    average = copy.deepcopy(trained).eval().requires_grad_(False)
    settings = settings_of(
        model.family, num_steps=num_steps, microbatch_size=2, learning_rate=3e-3, parallelism=parallelism,
        learning_rate_decay="constant", log_every_steps=100, checkpoint_every_steps=100,
    )  # fmt: skip
    training = Training(cache, trained.train(), average, settings, 0)
    Trainer(training, TrainingRun(run_dir, ranks, lambda _: None)).train()


def main(inputs_file, folder):
    """One of two ranks, which train every case in every layout."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    ranks = find_ranks()
    with process_group(ranks, torch.device("cpu"), "same"):
        for case, inputs in json.loads(Path(inputs_file).read_text()).items():
            for layout, options in layouts_of(case).items():
                train_case(case, inputs, Path(folder) / f"{case}-{layout}", ranks, *options)


@pytest.fixture(scope="module")
def folder(world, tmp_path_factory):  # noqa: F811
    """Run directories: each case on one rank, and on two in every layout."""
    folder = tmp_path_factory.mktemp("runs")
    inputs = {case: cached(world, family)[0] for case, (family, _, _) in CASES.items()}
    (folder / "inputs.json").write_text(json.dumps(inputs, default=str))
    two = start_ranks(folder, __file__, [folder / "inputs.json", folder], 2, **{RECORD_SAMPLES: 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(RECORD_SAMPLES, "1")
        for case in CASES:
            train_case(case, inputs[case], folder / f"{case}-alone", Ranks())
    ended = two.wait(400)
    assert [code for code, _ in ended] == [0, 0], ended
    return folder


def final(run_dir):
    return read_checkpoint(checkpoint_folder(run_dir, newest_checkpoint(run_dir))).tensors


@pytest.mark.parametrize("case", CASES)
def test_two_shards_of_every_family_see_the_samples_of_one_rank_and_have_its_losses(folder, case):
    alone, sharded = (final(folder / f"{case}-{layout}") for layout in ("alone", "fsdp"))
    samples = [take_seen(folder / f"{case}-{layout}") for layout in ("alone", "fsdp")]
    assert sorted(samples[0]) == list(range(1, NUM_STEPS + 1))
    assert [whole(ranks) for _, ranks in sorted(samples[0].items())] == [
        whole(ranks) for _, ranks in sorted(samples[1].items())
    ]
    assert {n: t.shape for n, t in sharded.items()} == {n: t.shape for n, t in alone.items()}
    losses, expected = (tensors["history"][:, 0].numpy() for tensors in (sharded, alone))
    assert len(losses) == NUM_STEPS and losses.std() > 1e-3
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-4)
    moved = [n for n in alone if n.startswith("exp_avg/") and alone[n].any()]
    assert moved
    for name in moved:
        weight = name.replace("exp_avg/", "weights/")
        torch.testing.assert_close(sharded[weight], alone[weight], rtol=0, atol=2e-3)


@pytest.mark.parametrize("case", AGAIN)
def test_computing_activations_again_changes_neither_losses_nor_gradients(folder, case):
    columns = [0, 2]  # loss and norm of the gradient
    plain = final(folder / f"{case}-fsdp")["history"][:NUM_AGAIN, columns]
    for layout in ("fsdp-again", "ddp-again"):
        again = final(folder / f"{case}-{layout}")["history"][:, columns]
        torch.testing.assert_close(again, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", AGAIN)
def test_what_is_computed_again_is_not_kept(world, case):  # noqa: F811
    cache = LatentCache(*cached(world, case)[0])
    samples = cache.gather(next(iter(cache.uids)), np.zeros(2, np.int64), np.ones(2, np.int64))
    kept = []
    for is_again in (False, True):
        denoiser, sizes = build_denoiser(model_of(case, is_again), cache.sizes, seed=0).train(), []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, s=sizes: (s.append(t.numel()), t)[1], lambda t: t
        ):
            denoiser(samples.latents, torch.tensor([0.2, 0.7]), samples.conditioning)
        kept.append(sum(sizes))
    assert kept[1] < 0.75 * kept[0]


if __name__ == "__main__":
    main(*sys.argv[1:])
