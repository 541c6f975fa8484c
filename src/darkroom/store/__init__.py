"""What passes between stages: part tables, image shards, latent shards, manifests."""

from darkroom.store.atomic import UNFINISHED, apply_umask, json_text, replacing, write_json
from darkroom.store.checks import Checked, check_stage, read_part_manifest, read_stage_manifest
from darkroom.store.digest import (
    in_key_order,
    sample_uid,
    sha256_file,
    sha256_folder,
    sha256_json,
    sha256_path,
)
from darkroom.store.manifest import (
    COMPUTED_IN,
    JUDGES,
    add_counts,
    check_newest_files,
    read_manifest,
    write_manifest,
    write_part_manifest,
)
from darkroom.store.parts import num_parts, part_index, part_name, retry_name, round_of
from darkroom.store.rows import parts_of, sha256_rows
from darkroom.store.tables import finite, read_table, write_batches, write_table
from darkroom.store.tars import TarReader, write_tar

__all__ = [
    "COMPUTED_IN",
    "JUDGES",
    "UNFINISHED",
    "Checked",
    "TarReader",
    "add_counts",
    "apply_umask",
    "check_newest_files",
    "check_stage",
    "finite",
    "in_key_order",
    "json_text",
    "num_parts",
    "part_index",
    "part_name",
    "parts_of",
    "read_manifest",
    "read_part_manifest",
    "read_stage_manifest",
    "read_table",
    "replacing",
    "retry_name",
    "round_of",
    "sample_uid",
    "sha256_file",
    "sha256_folder",
    "sha256_json",
    "sha256_path",
    "sha256_rows",
    "write_batches",
    "write_json",
    "write_manifest",
    "write_part_manifest",
    "write_table",
    "write_tar",
]
