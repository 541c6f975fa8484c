"""Which share of the ranks should encode: one small training with `train.encoder_ranks` from 0 up, and who waits.

Ranks are processes on this machine, which talk by gloo as in every training. A rank's device is a lock: who
encodes or trains a picture on it holds it for some milliseconds, besides the work of tiny models. So ranks do not
share the processors of a small machine as if those were their GPUs.

    python trials/encoder_ranks.py
    python trials/encoder_ranks.py --ranks 8 --encode-ms 20 --train-ms 60
"""

import argparse
import os
import pickle
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))
BATCH, NUM_STEPS = 24, 40


def write_inputs(folder: Path) -> None:
    """What the trainings read: some pictures, tiny encoders, and their index."""
    from test_cache import tables_in, write_part
    from test_components import write_vae
    from tiny_encoders import component, write_clip_text

    from darkroom.cache.fingerprint import expected_fingerprint
    from darkroom.cache.online import cache_index
    from darkroom.cache.stage import cache_null
    from darkroom.config.model import read_model
    from darkroom.config.run import Cache, Train
    from darkroom.models.training_components import TrainingComponents
    from darkroom.train.inputs import SampleFiles, TrainInputs

    write_part(folder)
    vae = component(write_vae(folder / "vae"), "vae")
    encoders = [component(write_clip_text(folder / "clip", 16, 8))]
    uses = [{"name": "clip", "hidden_layer": -2, "max_tokens": 16, "pooled": True}]
    cache = Cache(vae="vae", text_encoders=uses, batch_size=8, dtype="float32", online=True)
    shard, null = folder / "online.safetensors", folder / "null.safetensors"
    components = TrainingComponents(cache, vae, encoders)
    cache_index(tables_in(folder), components, shard, shard.with_suffix(".parquet"))
    cache_null(cache, encoders, null)
    expected = expected_fingerprint(cache, vae, encoders)
    files = SampleFiles([(shard, shard.with_suffix(".parquet"))], null, expected, [folder / "part.tar"])
    model = read_model({"family": "mmdit", "num_blocks": 1, "num_heads": 2, "head_dim": 8})
    settings = Train(
        num_steps=NUM_STEPS, global_batch_size=BATCH, microbatch_size=BATCH, num_threads=1, dtype="float32",
        log_every_steps=NUM_STEPS // 2, checkpoint_every_steps=NUM_STEPS,
    )  # fmt: skip
    (folder / "inputs").write_bytes(pickle.dumps(TrainInputs(files, components, model, settings, 0)))


def one_rank(folder: Path, num_encoders: int, encode_s: float, train_s: float) -> None:
    """A rank of a training; seconds are a picture's on its device."""
    from dataclasses import replace

    from darkroom.train.online import OnlineEncoder
    from darkroom.train.stage import TrainOutputs, train
    from darkroom.train.step import Stepper

    device, encode, step = threading.Lock(), OnlineEncoder.gather, Stepper.step

    def slow_encode(self, bucket, places, *rest):
        with device:
            time.sleep(encode_s * len(places))
            return encode(self, bucket, places, *rest)

    def slow_step(self, batch):
        with device:
            time.sleep(train_s * len(batch.latents))
        return step(self, batch)

    inputs = pickle.loads((folder / "inputs").read_bytes())
    settings = inputs.settings.model_copy(update={"encoder_ranks": num_encoders})
    out = folder / f"out-{num_encoders}"
    outputs = TrainOutputs(*(out / name for name in ("run", "model", "untrained", "history.parquet")))
    with (
        mock.patch.multiple(OnlineEncoder, gather=slow_encode),
        mock.patch.object(Stepper, "step", slow_step),
    ):
        train(replace(inputs, settings=settings), outputs, device="cpu")


def measured(folder: Path, num_ranks: int, num_encoders: int, seconds: tuple[float, float]) -> list[str]:
    """The row of one ratio: what rank 0's log says of the second half of the steps, and at the end."""
    from ranks import free_port

    (folder / f"out-{num_encoders}").mkdir()
    arguments = [__file__, "--rank-of", str(folder), str(num_encoders), *map(str, seconds)]
    common = {
        "WORLD_SIZE": num_ranks,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
        "OMP_NUM_THREADS": 1,
    }
    ranks = []
    for rank in range(num_ranks):
        env = {**os.environ, **{k: str(v) for k, v in {**common, "RANK": rank, "LOCAL_RANK": rank}.items()}}
        to = subprocess.PIPE if rank == 0 else subprocess.DEVNULL
        command = [sys.executable, *arguments]
        ranks.append(subprocess.Popen(command, env=env, stdout=to, stderr=subprocess.STDOUT, text=True))
    log, _ = ranks[0].communicate()
    if any(rank.wait() for rank in ranks):
        sys.exit(f"the training with {num_encoders} of {num_ranks} ranks failed:\n{log}")
    speed, wait = re.findall(r"([\d.]+) img/s.*?, ([\d.]+%) waiting", log)[-1]
    found = re.search(r"waited ([\d.]+%).*encoders ([\d.]+%).*about ([\d.]+) .*ranks: (\d+) fits", log)
    rest = list(found.groups()) if found else [wait, "", "", ""]
    return [f"{num_encoders} : {num_ranks - num_encoders}", speed, *rest]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--encode-ms", type=float, default=20, help="a picture on a device")
    parser.add_argument("--train-ms", type=float, default=20, help="a picture on a device")
    parser.add_argument("--rank-of", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank_of:
        folder, num_encoders, encode_s, train_s = args.rank_of
        return one_rank(Path(folder), int(num_encoders), float(encode_s), float(train_s))
    seconds = args.encode_ms / 1000, args.train_ms / 1000
    titles = [
        "Encoders : others",
        "Pictures a second",
        "Training waits",
        "Encoders wait",
        "One feeds",
        "Fits",
    ]
    print("|", " | ".join(titles), "|")
    print("|", " | ".join("---" for _ in titles), "|")
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder))
        for num_encoders in range(args.ranks):
            print("|", " | ".join(measured(Path(folder), args.ranks, num_encoders, seconds)), "|", flush=True)
    return None


if __name__ == "__main__":
    main()
