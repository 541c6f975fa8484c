"""Ranks that only encode: the others train on the samples that they would have encoded themselves."""

import json
import pickle
import re
import signal

import encoder_ranks
import pytest
import torch
from family_cases import CASES
from family_world import cached, settings_of, world  # noqa: F401
from ranks import start_ranks
from test_train_online import index

from darkroom.config.model import read_model
from darkroom.store import sha256_path
from darkroom.train.checkpoint import run_key
from darkroom.train.distributed import Ranks, training_ranks
from darkroom.train.encoders import Balance
from darkroom.train.inputs import SampleFiles, TrainInputs
from darkroom.train.messages import Message, packed, unpacked
from darkroom.train.signals import STOPPED_EXIT_CODE
from darkroom.train.stage import _find_ranks

FAMILY, SECTION, _ = CASES["mmdit"]
OPTIONS = {
    "num_steps": 9, "checkpoint_every_steps": 3, "log_every_steps": 3, "global_batch_size": 6,
    "validation": {"share": 0.3, "every_steps": 4, "num_levels": 1},
    "tags": {"captions": ["long", "short"], "separator": " ", "dropout": 0.3},
}  # fmt: skip


def run(folder, name, num_training, num_encoders, **options):
    """(exit code, output) of each rank."""
    (folder / name).mkdir(exist_ok=True)
    arguments = [folder / "inputs", folder / name, num_encoders, json.dumps(options)]
    return start_ranks(folder / name, encoder_ranks.__file__, arguments, num_training + num_encoders).wait(
        240
    )


def codes(ranks):
    return [code for code, _ in ranks]


@pytest.fixture(scope="module")
def folder(world, tmp_path_factory):  # noqa: F811
    """Where trainings on the same pictures lie, and what they read."""
    found = tmp_path_factory.mktemp("encoders")
    write_inputs(world, found, world.folder / "part.tar")
    return found


def write_inputs(world, folder, tar):  # noqa: F811
    indexed, parts, _ = index(world, FAMILY, folder)
    model = read_model({"family": FAMILY, **SECTION})
    inputs = TrainInputs(SampleFiles(*indexed, [tar]), parts, model, settings_of(FAMILY, **OPTIONS), 3)
    (folder / "inputs").write_bytes(pickle.dumps((inputs, cached(world, FAMILY)[0])))


@pytest.fixture(scope="module")
def trained(folder):
    """A training on three ranks that a fourth one encodes for, and that compare all that they get."""
    return run(folder, "whole", 3, 1, compare=True)


def test_one_encoder_gives_three_ranks_the_samples_that_they_would_make_or_read_themselves(trained):
    assert codes(trained) == [0, 0, 0, 0], trained
    first, *_, encoder = [output for _, output in trained]
    assert "4 ranks met at" in first and "the last 1 of them only encode" in first
    assert "9 steps" in first and "nothing is counted" in encoder


def test_the_log_tells_who_waits_and_which_number_of_encoders_fits(trained):
    first = trained[0][1]
    assert re.search(r"step 3/9, .* waiting for data, encoders \d+\.\d% idle, ", first), first
    said = r"training waited \d+\.\d% of the time for samples, encoders \d+\.\d% for requests: .*"
    assert re.search(said + r"of 4 ranks train\.encoder_ranks: [123] fits", first), first


def test_killed_and_stopped_at_its_encoder_it_ends_with_the_same_weights_on_more_encoders(trained, folder):
    killed = run(folder, "again", 3, 1, signal="SIGKILL", after=18)
    assert codes(killed)[3] == -signal.SIGKILL and not {0, None} & set(codes(killed)), killed
    assert re.search("lost another rank, .* rank 3, which encodes: ", killed[0][1]), killed
    stopped = run(folder, "again", 3, 1, signal="SIGTERM", after=1)
    assert codes(stopped) == [STOPPED_EXIT_CODE] * 4, stopped
    assert "stopped by a signal after step" in stopped[0][1]
    finished = run(folder, "again", 3, 2)
    assert codes(finished) == [0] * 5 and re.search(r"resumed at step [1-8],", finished[0][1]), finished
    for name in ("model", "history.parquet"):
        assert sha256_path(folder / "again" / name) == sha256_path(folder / "whole" / name), name


def test_a_picture_that_cannot_be_encoded_ends_all_ranks_with_the_encoders_own_words(world, tmp_path):  # noqa: F811
    tar = tmp_path / "cut.tar"
    tar.write_bytes((world.folder / "part.tar").read_bytes()[:700])
    write_inputs(world, tmp_path, tar)
    ranks = run(tmp_path, "damaged", 1, 1)
    assert 0 not in codes(ranks), ranks
    for _, output in ranks:
        assert "cut.tar: ends before byte" in output and "make the part again" in output, output
    assert "rank 1 of 2" in ranks[0][1]


def test_ranks_that_train_are_counted_as_if_there_were_no_encoders():
    found = [training_ranks(Ranks(rank, 4, rank % 2), 1) for rank in range(4)]
    assert found == [Ranks(0, 3, 0), Ranks(1, 3, 1), Ranks(2, 3, 0), None]
    assert training_ranks(Ranks(1, 4, 1), 0) == Ranks(1, 4, 1)


@pytest.mark.parametrize(
    ("num", "encoders", "said"),
    [
        (1, 1, "one rank is started"),
        (4, 4, "4 ranks are started, .*; start 5 or more"),
        (2, 3, "start 4 or more"),
    ],
)
def test_encoders_without_a_rank_that_trains_are_refused(num, encoders, said):
    with pytest.raises(ValueError, match=rf"train\.encoder_ranks {encoders}: .*{said}"):
        training_ranks(Ranks(0, num, 0), encoders)


def test_more_ranks_than_pictures_of_a_batch_are_counted_without_encoders(monkeypatch):
    settings = settings_of(FAMILY, global_batch_size=2, encoder_ranks=1)
    for name, value in {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 4}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ValueError, match="smaller than the 3 ranks that train; start at most 3"):
        _find_ranks(settings)
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert _find_ranks(settings)[1] == Ranks(0, 2, 0)


def test_the_number_of_encoders_makes_no_other_training():
    model, settings = read_model({"family": FAMILY, **SECTION}), settings_of(FAMILY)
    keys = {run_key(model, settings.model_copy(update={"encoder_ranks": n}), 0, "cache") for n in range(3)}
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("balance", "fed", "best"),
    [
        # Encoders do all that they can, and three ranks train half of the time: as much work on both sides
        # as 1 and 1.5 ranks do.
        (Balance(0.5, 0.0, 3, 1), 1.5, 2),
        (Balance(0.0, 0.7, 2, 2), 2 / 0.6, 1),
        (Balance(0.0, 0.1, 3, 1), 3 / 0.9, 1),
        (Balance(0.9, 0.0, 1, 1), 0.1, 1),
        (Balance(0.9, 0.0, 7, 1), 0.7, 5),
        (Balance(0.0, 1.0, 3, 1), 3e9, 1),
    ],
)
def test_the_share_that_each_side_waits_tells_how_many_ranks_should_encode(balance, fed, best):
    assert balance.fed == pytest.approx(fed) and balance.best == best
    assert f"train.encoder_ranks: {best} fits" in balance.told


def test_a_message_comes_out_as_it_went_in():
    given = [
        torch.arange(6, dtype=torch.int64).view(2, 3), torch.zeros(2, 0), torch.tensor([[True], [False]]),
        torch.randn(3, 1, 2).to(torch.bfloat16), torch.tensor(2.5, dtype=torch.float16),
    ]  # fmt: skip
    found = unpacked(*packed(Message({"bucket": [8, 16]}, given)))
    assert found.words == {"bucket": [8, 16]}
    for one, other in zip(found.tensors, given, strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)
