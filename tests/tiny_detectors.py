"""Object detectors with random weights, as transformers saves them, and ONNX files that give what is asked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx_files import INT, INTS, message, number, tensor, varint
from transformers import (
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessor,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    ResNetConfig,
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrImageProcessor,
    RTDetrResNetConfig,
    SwinConfig,
)

from darkroom.components.base import Component

LABELS = ("person", "dog", "mouse", "aeroplane", "tv")


def names(labels: Sequence[str] = LABELS) -> dict[str, Any]:
    return {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}


def write_detr(folder: Path) -> Component:
    torch.manual_seed(0)
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    config = DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone,
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=20, **names(),
    )  # fmt: skip
    DetrForObjectDetection(config).save_pretrained(folder)
    DetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(folder)
    return Component(kind="object_detector", path=str(folder))


def write_rt_detr(folder: Path) -> Component:
    torch.manual_seed(1)
    backbone = RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = RTDetrConfig(
        backbone_config=backbone, encoder_hidden_dim=16, encoder_in_channels=[8, 16, 16], encoder_ffn_dim=16,
        encoder_attention_heads=2, d_model=16, decoder_in_channels=[16, 16, 16], decoder_ffn_dim=16,
        decoder_attention_heads=2, decoder_layers=1, num_queries=30, num_denoising=0, **names(),
    )  # fmt: skip
    RTDetrForObjectDetection(config).save_pretrained(folder)
    RTDetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return Component(kind="object_detector", path=str(folder))


def write_mask2former(folder: Path, labels: Sequence[str] = LABELS) -> Component:
    torch.manual_seed(2)
    backbone = SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_layers=1,
        encoder_feedforward_dim=16, dim_feedforward=16, decoder_layers=2, num_attention_heads=2, num_queries=12,
        **names(labels),
    )  # fmt: skip
    Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)
    Mask2FormerImageProcessor().save_pretrained(folder)
    return Component(kind="object_detector", path=str(folder))


def gives(outputs: Mapping[str, np.ndarray], shape: Sequence[int]) -> bytes:
    """An ONNX model that gives these arrays whatever the picture: it adds 0 times the picture's mean."""
    nodes, constants, results = b"", b"", b""
    axes = attribute("axes", ints=range(len(shape)))
    nodes += node("ReduceMean", ["pixels"], ["mean"], axes + attribute("keepdims", value=0))
    constants += initializer("zero", np.zeros((), np.float32))
    nodes += node("Mul", ["mean", "zero"], ["nothing"])
    for name, values in outputs.items():
        constants += initializer(f"{name}_values", values.astype(np.float32))
        nodes += node("Add", [f"{name}_values", "nothing"], [name])
        results += message(12, tensor(name, values.shape))
    graph = nodes + message(2, "graph") + constants + message(11, tensor("pixels", shape)) + results
    opset = message(1, "") + number(2, 13)
    return number(1, 8) + message(7, graph) + message(8, opset)


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], attributes: bytes = b"") -> bytes:
    """A NodeProto of a graph."""
    body = b"".join(message(1, name) for name in inputs) + b"".join(message(2, name) for name in outputs)
    return message(1, body + message(4, kind) + attributes)


def attribute(name: str, value: int | None = None, ints: Sequence[int] = (), text: str = "") -> bytes:
    """An AttributeProto of a node: an integer, several, or a text."""
    if text:
        return message(5, message(1, name) + message(4, text) + number(20, 3))
    if value is not None:
        return message(5, message(1, name) + number(3, value % 2**64) + number(20, INT))
    listed = b"".join(varint(8 << 3) + varint(i % 2**64) for i in ints)
    return message(5, message(1, name) + listed + number(20, INTS))


def initializer(name: str, values: np.ndarray) -> bytes:
    """A TensorProto of a graph: float32 or int64."""
    kind = {"float32": 1, "int64": 7}[values.dtype.name]
    dims = b"".join(number(1, n) for n in values.shape)
    return message(5, dims + number(2, kind) + message(8, name) + message(9, values.tobytes()))
