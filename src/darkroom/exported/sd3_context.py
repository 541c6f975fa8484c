"""StableDiffusion3Pipeline with a trained extension of its context, through which later T5 tokens pass.

This file imports diffusers alone: it is copied into exported model folders as it is, beside the extension's own.
"""

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from torch import Tensor


class SD3ContextPipeline(StableDiffusion3Pipeline):
    """diffusers' pipeline of SD3; `context` is a ContextExtension.

    max_text_tokens: T5 tokens of a prompt, as trained; what a call takes if it is not told another number.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->text_encoder_3->context->transformer->vae"

    def __init__(
        self,
        transformer: Any,
        scheduler: Any,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        text_encoder_2: Any,
        tokenizer_2: Any,
        text_encoder_3: Any,
        tokenizer_3: Any,
        context: ModelMixin,
        image_encoder: Any = None,
        feature_extractor: Any = None,
        max_text_tokens: int = 256,
    ):
        super().__init__(
            transformer, scheduler, vae, text_encoder, tokenizer,
            text_encoder_2, tokenizer_2, text_encoder_3, tokenizer_3, image_encoder, feature_extractor,
        )  # fmt: skip
        self.register_modules(context=context)
        self.register_to_config(max_text_tokens=max_text_tokens)

    def save_pretrained(self, save_directory: Any, *arguments: Any, **options: Any) -> Any:
        """As diffusers does, and with the code that loads it again, which diffusers leaves out."""
        super().save_pretrained(save_directory, *arguments, **options)
        folder = Path(save_directory)
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        for name, part in {"": self, "context": self.context}.items():
            code = Path(inspect.getfile(type(part)))
            file = f"{name}/{code.name}" if name else "pipeline.py"
            shutil.copyfile(code, folder / file)
            index[name or "_class_name"] = [Path(file).stem, type(part).__name__]
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")

    def _get_t5_prompt_embeds(self, *arguments: Any, **options: Any) -> Tensor:
        return self.context(super()._get_t5_prompt_embeds(*arguments, **options))

    def __call__(self, *arguments: Any, max_sequence_length: int | None = None, **options: Any) -> Any:
        """As StableDiffusion3Pipeline; max_sequence_length is `max_text_tokens` unless given."""
        length = max_sequence_length or self.config["max_text_tokens"]
        return super().__call__(*arguments, max_sequence_length=length, **options)
