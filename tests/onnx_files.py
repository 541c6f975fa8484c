"""ONNX files as small as can be, written as protobuf by hand: what writes them is no dependency."""

from collections.abc import Sequence

FLOAT = 1
INT, INTS = 2, 7


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, body: bytes | str) -> bytes:
    body = body.encode() if isinstance(body, str) else body
    return varint(field << 3 | 2) + varint(len(body)) + body


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def tensor(name: str, shape: Sequence[int | str]) -> bytes:
    """ValueInfoProto of a float tensor; sizes that are text are free."""
    dims = b"".join(message(1, message(2, n) if isinstance(n, str) else number(1, n)) for n in shape)
    return message(1, name) + message(2, message(1, number(1, FLOAT) + message(2, dims)))


def means_of_channels(shape: Sequence[int | str], axes: Sequence[int]) -> bytes:
    """A model with the input `pixels` of that shape, whose output is the mean over two axes."""
    axis_list = message(1, "axes") + b"".join(number(8, axis) for axis in axes) + number(20, INTS)
    keepdims = message(1, "keepdims") + number(3, 0) + number(20, INT)
    node = message(1, "pixels") + message(2, "means") + message(4, "ReduceMean")
    node += message(5, axis_list) + message(5, keepdims)
    graph = message(1, node) + message(2, "graph") + message(11, tensor("pixels", shape))
    graph += message(12, tensor("means", (shape[0], 3)))
    opset = message(1, "") + number(2, 13)
    return number(1, 8) + message(7, graph) + message(8, opset)
