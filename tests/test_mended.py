"""More defects of published training systems, each with a test that it is not ours: docs/recipes/mended.md."""

import re
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from doc_pages import rows_after
from test_objectives_algebra import settings
from test_train_data import FINGERPRINT, write_cache
from test_train_loop import ALONE, PARTS, changed, make_models
from torch.nn.parallel import DistributedDataParallel

from darkroom.exported.context import ContextExtension
from darkroom.train import record
from darkroom.train.data import LatentCache
from darkroom.train.loader import BatchMaker
from darkroom.train.plan import BatchPlan
from darkroom.train.record import History, Progress
from darkroom.train.step import Stepper, learning_rate_at, make_optimizers

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/recipes/mended.md"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return LatentCache(*write_cache(tmp_path_factory.mktemp("cache"), PARTS), FINGERPRINT)


def test_every_mended_defect_and_every_published_number_has_the_test_that_the_page_names():
    page = PAGE.read_text()
    defects = rows_after(page, "| System | What it did | Test |")
    numbers = rows_after(page, "| Number | Test |")
    assert len(defects) > 50 and len({row[0] for row in defects}) == 6 and len(numbers) > 25
    for *_, cell in [*defects, *numbers]:
        named = re.findall(r"`(test_\w+)\.py::(\w+)`", cell)
        assert len(named) == cell.count("::") > 0, cell
        for file, test in named:
            assert f"def {test}(" in (ROOT / f"tests/{file}.py").read_text(), test


@pytest.mark.parametrize(("rate", "share"), [(1e-6, 0.155), (5e-8, 0.005)])
def test_dreambooth_in_colossalai_kept_half_precision_weights_and_lost_its_updates(rate, share):
    """AdamW's first step is the rate, in the gradient's direction: most of it is below half a unit of float16."""
    weights = torch.randn(100_000, generator=torch.Generator().manual_seed(0)) * 0.02
    half = weights.half()
    moved = (half.float() + rate * torch.randn(100_000).sign()).half()
    assert float((moved != half).float().mean()) == pytest.approx(share, abs=0.01)
    model = torch.nn.Linear(100, 1000, bias=False)
    with torch.no_grad():
        model.weight.copy_(weights.reshape(1000, 100))
    ours = changed(learning_rate=rate, dtype="bfloat16", weight_decay=0.0)
    (optimizer,) = make_optimizers(model, ours)
    model.weight.grad = torch.randn_like(model.weight)
    optimizer.step()
    assert model.weight.dtype == torch.float32
    assert float((model.weight.flatten() != weights).float().mean()) > 0.97


def test_novelai_reproduction_multiplied_its_rate_by_the_batch_size_and_ours_is_what_is_written():
    rates = [learning_rate_at(5, settings().model_copy(update={"global_batch_size": n})) for n in (1, 4, 64)]
    assert rates[0] == rates[1] == rates[2]


def test_epsilon_is_adamws():
    """PixelProse-PowerUp's 1e-15: a gradient far below the default's 1e-8 moves the weights as far as any."""
    moved = []
    for epsilon in (1e-15, 1e-8):
        model = torch.nn.Linear(1, 1, bias=False)
        start = model.weight.item()
        (optimizer,) = make_optimizers(model, changed(epsilon=epsilon, learning_rate=0.1, weight_decay=0.0))
        model.weight.grad = torch.full((1, 1), 1e-10)
        optimizer.step()
        moved.append(abs(model.weight.item() - start))
    assert moved[0] == pytest.approx(0.1, rel=1e-3) and moved[1] < 0.01


def test_pixelprose_read_77_of_435_later_tokens_and_ours_reads_all():
    extension = ContextExtension(text_dim=16, hidden_dim=8, num_base_tokens=77)
    torch.nn.init.normal_(extension.mlp_out.weight)
    t5 = torch.randn(2, 512, 16, generator=torch.Generator().manual_seed(0))
    same = (extension(t5) == t5).all(dim=-1)
    assert same[:, :77].all() and not same[:, 77:].any() and same[:, 77:].shape[1] == 435


def test_pixelproses_published_module_is_there_as_published():
    """Linear, ReLU, Linear to 2048 of T5's 4096 channels; weights from N(0, 0.01^2), biases zero, no residual."""
    torch.manual_seed(0)
    extension = ContextExtension(text_dim=4096, hidden_dim=2048, num_base_tokens=77, form="mlp")
    for linear, shape in ((extension.mlp_in, (2048, 4096)), (extension.mlp_out, (2048, 2048))):
        assert linear.weight.shape == shape and not linear.bias.any()
        assert float(linear.weight.std()) == pytest.approx(0.01, rel=0.01)
    t5 = torch.randn(1, 79, 4096)
    found = extension(t5)
    expected = torch.relu(t5[:, 77:] @ extension.mlp_in.weight.T) @ extension.mlp_out.weight.T
    torch.testing.assert_close(found[:, 77:, :2048], expected, atol=1e-4, rtol=1e-3)
    assert not found[:, 77:, 2048:].any() and torch.equal(found[:, :77], t5[:, :77])


def stepped(cache, model, options, num=1):
    """Gradient norms of the first steps of an optimizer."""
    trained, ema = model
    stepper = Stepper(trained, make_optimizers(trained, options), ema, options)
    batches = BatchMaker(cache, BatchPlan(0, options.global_batch_size, cache.uids), options, 0)
    return [float(stepper.step(batches.make(step))[1]) for step in range(num)]


def test_open_diffusion_clipped_each_partial_gradient_and_ours_the_whole_one(cache):
    whole, parts = (
        stepped(cache, make_models(cache, plain=True), changed(microbatch_size=size, max_grad_norm=1e-3))
        for size in (6, 2)
    )
    assert parts == pytest.approx(whole, rel=1e-4) and whole[0] > 1e-3


def test_two_systems_exchanged_gradients_with_every_accumulated_batch_and_ours_once_a_step(cache, tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model, ema = make_models(cache, plain=True)
        exchanged = []

        def count(_, bucket):
            exchanged.append(bucket.index())
            done = torch.futures.Future()
            done.set_result(bucket.buffer())
            return done

        shared = DistributedDataParallel(model)
        shared.register_comm_hook(None, count)
        stepped(cache, (shared, ema), changed(microbatch_size=2), num=1)
        assert len(exchanged) == len(set(exchanged)) > 0  # three microbatches, each bucket once
    finally:
        dist.destroy_process_group()


def test_open_diffusions_running_mean_hid_stalls_and_ours_shows_them_in_their_lines(tmp_path, monkeypatch):
    """Ten steps of a second each, then ten of ten seconds each: their mean since the start would be 5.5."""
    clock, lines = [0.0], []
    monkeypatch.setattr(record.time, "perf_counter", lambda: clock[0])
    options = changed(global_batch_size=10)
    progress = Progress(tmp_path, options, 0, lines.append)
    history = History(options, ALONE)
    for seconds in (1.0, 10.0):
        clock[0] += 10 * seconds
        history.restore(torch.zeros(history.num_done + 10, history.rows.shape[1], dtype=torch.float64))
        progress.report(history, 0.0)
    progress.close()
    assert [float(re.search(r"([\d.]+) img/s", line)[1]) for line in lines[:2]] == [10.0, 1.0]


def test_open_diffusion_evaluated_filters_as_code_and_nothing_of_ours_evaluates_or_unpickles():
    code = [p for folder in ("src", "workflow") for p in sorted((ROOT / folder).rglob("*.py"))]
    code += sorted((ROOT / "rules").glob("*.smk"))
    assert len(code) > 100
    for path in code:
        found = re.search(
            r"(?<![.\w])(eval|exec)\(|import pickle|torch\.load\((?!.*weights_only=True)|\.loads?_pickle",
            path.read_text(),
        )
        assert not found, f"{path}: {found}"
