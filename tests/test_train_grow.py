"""A training that gets more steps: it goes on where the result is that of one that had them from the start."""

import pytest
from PIL import Image
from pydantic import ValidationError
from test_train_loop import SETTINGS, assert_equal, cache, changed, run  # noqa: F401 - a fixture

from darkroom.config.run import Train
from darkroom.train.checkpoint import newest_checkpoint
from darkroom.train.samples import copy_samples
from darkroom.train.step import learning_rate_at


def steps_of(folder):
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))


def grow(cache, folder, *settings):  # noqa: F811
    """What the last of these trainings gave, in one run directory, and what each has told."""
    told = []
    for one in settings:
        lines: list[str] = []
        result = run(cache, folder, one, log=lines.append)
        told.append("\n".join(lines))
    return result, told


@pytest.mark.parametrize("warmup", [0, 3])
def test_at_a_constant_rate_20_steps_and_then_30_are_30_steps(cache, tmp_path, warmup):  # noqa: F811
    few, many = (
        changed(num_steps=steps, learning_rate_decay="constant", num_warmup_steps=warmup)
        for steps in (20, 30)
    )
    grown, (_, told) = grow(cache, tmp_path / "grown", few, many)
    assert "resumed at step 20, 0 steps repeated" in told
    assert_equal(grown, run(cache, tmp_path / "straight", many))


def test_before_a_decay_at_the_end_20_steps_and_then_30_are_30_steps(cache, tmp_path):  # noqa: F811
    few, many, other = (
        changed(num_steps=steps, num_decay_steps=decay) for steps, decay in ((20, 7), (30, 7), (30, 10))
    )
    grown, (_, told) = grow(cache, tmp_path / "grown", few, many)
    assert "step-00000020: passed over, the learning rate of step 15 was another, as in a decay" in told
    assert "resumed at step 13, 7 steps repeated" in told
    assert_equal(grown, run(cache, tmp_path / "straight", many))
    # And another decay of the same training begins where it begins.
    again, (told,) = grow(cache, tmp_path / "grown", other)
    assert "step-00000023: passed over, the learning rate of step 22 was another" in told
    assert_equal(again, run(cache, tmp_path / "other", other))


def test_the_step_before_a_decay_is_kept_however_many_follow(cache, tmp_path):  # noqa: F811
    run(cache, tmp_path, changed(num_steps=20, num_decay_steps=13, checkpoint_every_steps=2))
    assert steps_of(tmp_path) == [7, 18, 20]


def test_fewer_steps_begin_again_and_remove_nothing(cache, tmp_path):  # noqa: F811
    many, few = (changed(num_steps=steps, learning_rate_decay="constant") for steps in (30, 12))
    shrunk, (_, told) = grow(cache, tmp_path / "shrunk", many, few)
    assert "step-00000030: passed over, it is past num_steps 12" in told
    assert {25, 30} <= set(steps_of(tmp_path / "shrunk"))
    assert_equal(shrunk, run(cache, tmp_path / "straight", few))


def test_a_grown_training_that_is_killed_goes_on(cache, tmp_path):  # noqa: F811
    few, many = (changed(num_steps=steps, num_decay_steps=4, sample_every_steps=1) for steps in (12, 24))
    run(cache, tmp_path / "cut", few)

    class Killed(Exception): ...

    def kill(_, step):
        if step == 17:
            raise Killed

    with pytest.raises(Killed):
        run(cache, tmp_path / "cut", many, kill)
    assert newest_checkpoint(tmp_path / "cut") == 15
    assert_equal(run(cache, tmp_path / "cut", many), run(cache, tmp_path / "straight", many))


def test_the_pictures_of_a_training_are_those_of_its_own_steps(tmp_path):
    (tmp_path / "drawn").mkdir()
    for step in (2, 4, 6, 8):
        Image.new("RGB", (8, 8)).save(tmp_path / f"drawn/step-{step:08d}.png")
    settings = changed(num_steps=7, sample_every_steps=2, sample_prompts=("a circle",))
    copy_samples(settings, tmp_path / "drawn", tmp_path / "out", 7)
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == [
        f"step-{step:08d}.png" for step in (2, 4, 6)
    ]
    copy_samples(changed(sample_every_steps=0), tmp_path / "drawn", tmp_path / "none", 7)
    assert list((tmp_path / "none").iterdir()) == []


def test_the_rate_rises_stays_and_falls_to_its_end():
    settings = changed(num_steps=20, num_warmup_steps=3, num_decay_steps=5, learning_rate_decay="linear")
    rates = [learning_rate_at(step, settings) / settings.learning_rate for step in range(20)]
    assert rates[3:16] == [1.0] * 13 and rates[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    assert rates[16:] == pytest.approx([0.8, 0.6, 0.4, 0.2])
    # Where the decay is all that follows the warm-up, the option changes nothing.
    whole = changed(num_decay_steps=17)
    assert [learning_rate_at(step, whole) for step in range(20)] == [
        learning_rate_at(step, SETTINGS) for step in range(20)
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"learning_rate_decay": "constant", "num_decay_steps": 3},
            "never decays; leave num_decay_steps out",
        ),
        (
            {"num_warmup_steps": 6, "num_decay_steps": 5},
            "num_warmup_steps 6 and num_decay_steps 5 are more than",
        ),
        ({"num_decay_steps": 0}, "greater than or equal to 1"),
    ],
)
def test_a_decay_that_cannot_be_is_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        Train(num_steps=10, global_batch_size=4, microbatch_size=4, **options)
