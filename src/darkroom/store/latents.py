"""Latent shards: encoded pictures and captions of a part, memory-mapped, and never a stale one.

A shard is a safetensors file with a table beside it (a row a picture, sorted by uid). Tensors:

    latents/<w>x<h>   (N, C, H, W)  one dense array a bucket; the table's `index` is the place in it
    text/<name>       (T, D)        hidden states of real tokens of the captions of a name, one after another;
                                    the table's <name>_offset and <name>_length cut a caption out
    pooled/<name>     (R, P)        pooled vectors, row i of the table

Where there are several text encoders, the second's tensors are text.1/<name> and pooled.1/<name>, its
columns <name>_offset.1 and <name>_length.1, and so on; only encoders with a pooled embedding have pooled
tensors. A cache with size conditioning has the columns of SIZE_COLUMNS too.

A shard whose fingerprint says `online` holds what is needed to encode during training instead:

    caption/<name>    (S,) uint8    captions in UTF-8, one after another; the table's <name>_offset and
                                    <name>_length cut one out

and its table the columns of `online_columns`: where a picture's JPEG lies in the part's tar, and its crop.

The header's metadata holds the shard's fingerprint: every input that shaped its numbers, by name; and
as `caption_names` which captions it holds. The shard of the empty caption has text/null (T, D) and pooled/null
(1, P) and no table.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from darkroom.store.atomic import replacing
from darkroom.store.reads import FileState
from darkroom.store.tables import read_table

INDEX_COLUMNS = ("uid", "row", "bucket_width", "bucket_height", "index")
SIZE_COLUMNS = ("original_height", "original_width", "crop_top", "crop_left")
_ONLINE_COLUMNS = (
    *("uid", "row", "bucket_width", "bucket_height", "offset", "size", "width", "height"),
    *("resized_width", "resized_height", "crop_left", "crop_top"),
)
_METADATA_KEY = "darkroom"
_MAX_HEADER_BYTES = 100_000_000  # as safetensors has it
_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def latents_name(width: int, height: int) -> str:
    """The tensor that holds a bucket's latents; the bucket's sides are in pixels."""
    return f"latents/{width}x{height}"


def of_encoder(name: str, encoder: int) -> str:
    """The name of a tensor or column for the encoder at a place of the list; the first's has no number."""
    if encoder == 0:
        return name
    head, slash, tail = name.partition("/")
    return f"{head}.{encoder}{slash}{tail}"


def table_columns(captions: Sequence[str], num_encoders: int = 1, has_sizes: bool = False) -> list[str]:
    """The columns of a shard's table, with captions of these names."""
    return [*INDEX_COLUMNS, *_spans(captions, num_encoders), *(SIZE_COLUMNS if has_sizes else ())]


def online_columns(captions: Sequence[str]) -> list[str]:
    """The columns of the table of a shard that is encoded during training."""
    return [*_ONLINE_COLUMNS, *_spans(captions, 1)]


def _spans(captions: Sequence[str], num_encoders: int) -> list[str]:
    """The columns that cut a caption out."""
    return [
        of_encoder(f"{name}_{what}", encoder)
        for encoder in range(num_encoders)
        for name in captions
        for what in ("offset", "length")
    ]


def table_digest(table: pl.DataFrame) -> str:
    """SHA-256 of a shard's table, independent of how Parquet stored it: `sha256_json` of its columns as lists."""
    digest, sign = hashlib.sha256(), "{"
    for name in sorted(table.columns):
        digest.update(f"{sign}{json.dumps(name)}:{_json_list(table[name])}".encode())
        sign = ","
    digest.update(b"}" if table.columns else b"{}")
    return digest.hexdigest()


def _json_list(column: pl.Series) -> str:
    if column.dtype.is_integer() and len(column) and not column.null_count():
        # A tenth of the time that lists of Python's numbers take.
        return f"[{column.cast(pl.String).str.join(',')[0]}]"
    return json.dumps(column.to_list(), separators=(",", ":"), allow_nan=False)


def write_shard(
    path: str | Path, tensors: Mapping[str, torch.Tensor], fingerprint: Mapping[str, Any]
) -> None:
    """Write a shard atomically; the same tensors and fingerprint give the same bytes."""
    metadata = {_METADATA_KEY: _fingerprint_text(fingerprint)}
    with replacing(path) as beside:
        save_file({name: t.contiguous() for name, t in tensors.items()}, beside, metadata)


def _fingerprint_text(fingerprint: Mapping[str, Any]) -> str:
    # One metadata entry only: safetensors writes several in no fixed order.
    return json.dumps(dict(fingerprint), sort_keys=True, separators=(",", ":"), allow_nan=False)


class ShardWriter:
    """A shard that is written in pieces, each to its place; made by `written_shard`."""

    def __init__(
        self, file: BinaryIO, places: Mapping[str, tuple[int, int, int]], dtype: torch.dtype
    ) -> None:
        """`places`: of each tensor the byte where it begins, the bytes of a row, and its rows."""
        self._file, self._places, self._dtype = file, places, dtype
        self._missing = {name: num_rows for name, (_, _, num_rows) in places.items()}

    def write(self, name: str, first: int, rows: torch.Tensor) -> None:
        """Rows `first` and following of a tensor (n, ...), each once."""
        begin, row_bytes, _ = self._places[name]
        content = rows.contiguous().view(-1).view(torch.uint8).numpy()
        assert rows.dtype == self._dtype and len(content) == len(rows) * row_bytes, name
        self._file.seek(begin + first * row_bytes)
        self._file.write(content.data)
        self._missing[name] -= len(rows)

    def check_whole(self) -> None:
        """Every row of every tensor was written."""
        assert not any(self._missing.values()), self._missing


@contextmanager
def written_shard(
    path: str | Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype,
    fingerprint: Mapping[str, Any],
) -> Iterator[ShardWriter]:
    """The bytes that `write_shard` would write, for tensors of known shapes that are never all in memory.

    The format (github.com/huggingface/safetensors): 8 bytes with the header's length, the header in JSON padded
    with spaces to 8 bytes, and the tensors one after another, sorted by name where all have one dtype.
    """
    header: dict[str, Any] = {"__metadata__": {_METADATA_KEY: _fingerprint_text(fingerprint)}}
    rows, end = {}, 0
    for name in sorted(shapes):
        num_rows, *rest = shapes[name]
        row_bytes = math.prod(rest) * dtype.itemsize
        rows[name] = (end, row_bytes, num_rows)
        offsets = [end, end + num_rows * row_bytes]
        header[name] = {"dtype": _DTYPES[dtype], "shape": list(shapes[name]), "data_offsets": offsets}
        end = offsets[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    begin = 8 + len(text)
    places = {name: (begin + first, row_bytes, num) for name, (first, row_bytes, num) in rows.items()}
    with replacing(path) as beside:
        with open(beside, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(begin + end)
            writer = ShardWriter(file, places, dtype)
            yield writer
        writer.check_whole()


@dataclass(frozen=True)
class TensorLayout:
    """A tensor in a file: the format's name of its type, its shape, and the byte where it begins."""

    dtype: str
    shape: tuple[int, ...]
    begin: int


class ShardHeader:
    """What a shard's file says of itself, without its numbers.

    Attributes:
        state: which file it is. digest: SHA-256 of the header, and so of all that made the shard.
        layout: its tensors by name.
        fingerprint: every input that shaped its numbers.

    Args:
        path: the safetensors file.
        expected: fingerprint fields that the shard must have; fields not named are not compared.

    Raises:
        ValueError: the file is no shard, or is stale; names the file and the fields that differ.
    """

    def __init__(self, path: str | Path, expected: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path)
        with open(path, "rb") as file:
            self.state = FileState.of(path, file.fileno())
            length = int.from_bytes(file.read(8), "little")
            text = file.read(min(length, _MAX_HEADER_BYTES))
        try:
            header = json.loads(text)
            metadata = header.pop("__metadata__", {})
            self.layout = {
                name: TensorLayout(of["dtype"], tuple(of["shape"]), 8 + length + int(of["data_offsets"][0]))
                for name, of in header.items()
            }
            end = 8 + length + max((int(of["data_offsets"][1]) for of in header.values()), default=0)
            if end != self.state.size:
                raise ValueError(f"it has {self.state.size} bytes, and its header says {end}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: no whole safetensors file ({error}); make the cache again") from error
        if _METADATA_KEY not in metadata:
            raise ValueError(f"{path}: has no fingerprint, so the cache stage did not write it")
        self.digest = hashlib.sha256(text).hexdigest()
        self.fingerprint: dict[str, Any] = json.loads(metadata[_METADATA_KEY])
        check_fingerprint(path, self.fingerprint, expected or {})

    @property
    def captions(self) -> tuple[str, ...]:
        """The names of the captions that the shard holds."""
        return tuple(self.fingerprint["caption_names"])

    @property
    def num_encoders(self) -> int:
        """How many text encoders the shard has embeddings of."""
        return len(self.fingerprint.get("text_encoders", [None]))

    @property
    def has_sizes(self) -> bool:
        """Whether the table holds original sizes and crops."""
        return bool(self.fingerprint.get("sizes"))

    @property
    def is_online(self) -> bool:
        """Whether the shard holds no latents and embeddings, but what they are encoded from."""
        return bool(self.fingerprint.get("online"))

    def buckets(self) -> list[tuple[int, int]]:
        """(width, height) in pixels of every bucket that has latents here."""
        names = [name.removeprefix("latents/") for name in self.layout if name.startswith("latents/")]
        return sorted((int(w), int(h)) for w, _, h in (name.partition("x") for name in names))

    def read_table(self, path: str | Path) -> pl.DataFrame:
        """The shard's table.

        Raises:
            ValueError: it is another shard's; names both files.
        """
        stored = table_columns(self.captions, self.num_encoders, self.has_sizes)
        table = read_table(path, online_columns(self.captions) if self.is_online else stored)
        if table_digest(table) != self.fingerprint.get("table"):
            raise ValueError(f"{path}: is not the table of {self.path}; make both again (stage cache)")
        return table


class LatentShard(ShardHeader):
    """A shard opened for reading: its tensors are views of the mapped file, read as they are touched.

    Args:
        path, expected: as of `ShardHeader`.
        table: its table, or None for the shard of the empty caption.

    Raises:
        ValueError: the file is no shard, or is stale; names the file and the fields that differ.
    """

    def __init__(
        self, path: str | Path, table: str | Path | None, expected: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(path, expected)
        try:
            with safe_open(path, framework="pt") as file:
                self.tensors: dict[str, torch.Tensor] = {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path}: no whole safetensors file ({error}); make the cache again") from error
        self.table = None if table is None else self.read_table(table)

    def latents(self, width: int, height: int) -> torch.Tensor:
        """(N, C, H, W) latents of a bucket in the stored dtype."""
        return self.tensors[latents_name(width, height)]

    def text(self, caption: str, encoder: int = 0) -> torch.Tensor:
        """(T, D) token embeddings of the captions of a name."""
        return self.tensors[of_encoder(f"text/{caption}", encoder)]

    def pooled(self, caption: str, encoder: int = 0) -> torch.Tensor:
        """(R, P) pooled embeddings of the captions of a name, a row for each of the table's; P may be 0."""
        name = of_encoder(f"pooled/{caption}", encoder)
        return self.tensors[name] if name in self.tensors else self.text(caption, encoder).new_zeros(0, 0)


def check_fingerprint(path: str | Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse a shard made from something else than expected.

    Raises:
        ValueError: names the file and, for each field that differs, what it is and should be.
    """
    differ = [
        f"{name} is {_short(found.get(name))}, expected {_short(value)}"
        for name, value in sorted(expected.items())
        if found.get(name) != value
    ]
    if differ:
        raise ValueError(f"{path}: stale shard: {'; '.join(differ)}. Run the cache stage again")


def _short(value: Any) -> str:
    text = "missing" if value is None else str(value)
    return text if len(text) <= 16 else f"{text[:12]}..."
