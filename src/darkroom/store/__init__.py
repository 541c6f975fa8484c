"""What passes between stages: part tables, image shards, latent shards, manifests."""

from darkroom.store.atomic import replacing, write_json
from darkroom.store.digest import sample_uid, sha256_file, sha256_folder, sha256_json, sha256_path
from darkroom.store.manifest import (
    check_newest_files,
    read_manifest,
    verify_manifest,
    write_manifest,
    write_part_manifest,
)
from darkroom.store.parts import num_parts, part_index, part_name
from darkroom.store.tables import read_table, write_table
from darkroom.store.tars import TarReader, write_tar

__all__ = [
    "TarReader",
    "check_newest_files",
    "num_parts",
    "part_index",
    "part_name",
    "read_manifest",
    "read_table",
    "replacing",
    "sample_uid",
    "sha256_file",
    "sha256_folder",
    "sha256_json",
    "sha256_path",
    "verify_manifest",
    "write_json",
    "write_manifest",
    "write_part_manifest",
    "write_table",
    "write_tar",
]
