"""Draws with exports by diffusers alone, of the versions that PYTHONPATH has; darkroom cannot be imported here.

Run with a file of jobs, each a form of export, where it lies and what to call; writes a picture of each, or why
there is none.
"""

import json
import sys
from pathlib import Path
from typing import Any


class Refuse:
    """Finds no darkroom."""

    def find_spec(self, name: str, *rest: Any) -> None:
        if name.split(".")[0] == "darkroom":
            raise ModuleNotFoundError("darkroom is not installed here")


sys.meta_path.insert(0, Refuse())
sys.path[:] = [path for path in sys.path if not path.endswith("/src")]

import diffusers  # noqa: E402 (after darkroom is refused)
import numpy as np  # noqa: E402
import torch  # noqa: E402

diffusers.logging.set_verbosity_error()


def read(job: dict[str, Any]) -> Any:
    """A pipeline with what the job's form says."""
    cls, form, path = getattr(diffusers, job["cls"]), job["form"], job["path"]
    if form == "single_file":
        pipeline = cls.from_single_file(path, config=job["folder"], local_files_only=True)
        if hasattr(
            pipeline, "text_encoder_3"
        ):  # which diffusers leaves in training, where T5 drops at random
            pipeline.text_encoder_3.eval()
        return pipeline
    custom = {"trust_remote_code": True} if job["cls"] == "DiffusionPipeline" else {}
    pipeline = cls.from_pretrained(path if form == "folder" else job["folder"], **custom)
    part = job["part"]
    if form == "lora":
        pipeline.load_lora_weights(path, weight_name=job["weights"])
    if form == "adapter":  # of a network alone
        getattr(pipeline, part).load_lora_adapter(path, weight_name=job["weights"], prefix=part)
    if form == "gguf":
        network = type(getattr(pipeline, part)).from_single_file(
            path, config=f"{job['folder']}/{part}", local_files_only=True,
            quantization_config=diffusers.GGUFQuantizationConfig(compute_dtype=torch.float32),
        )  # fmt: skip
        pipeline.register_modules(**{part: network})
    return pipeline


def draw(job: dict[str, Any]) -> Any:
    pipeline = read(job)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(job["seed"])
    return pipeline(job["prompt"], generator=generator, output_type="np", **job["call"]).images[0]


if __name__ == "__main__":
    found = {}
    for job in json.loads(Path(sys.argv[1]).read_text()):
        try:
            np.save(job["out"], draw(job))
        except Exception as error:
            found[job["name"]] = f"{type(error).__name__}: {error}"
    Path(sys.argv[2]).write_text(json.dumps(found))
