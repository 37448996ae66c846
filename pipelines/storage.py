"""Files on anything that Beam's FileSystems reach: local paths, `gs://`, `s3://`, `hdfs://`.

A file written here is whole or absent: its bytes go to a temporary name outside of every folder that is read,
and are renamed. Beam's own transparent decompression is off throughout: names are no proof of content. Where a
file cannot be reached every function raises `OSError`, of which Beam's own errors are.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

import msgspec
from apache_beam.io.filesystem import CompressionTypes, FileMetadata
from apache_beam.io.filesystems import FileSystems

T = TypeVar("T")


def absolute(path: str) -> str:
    """`path` such that it means the same in every process: local ones are made absolute."""
    return path if "://" in path else os.path.abspath(Path(path).expanduser())  # noqa: PTH100 - resolve() would follow links


def join(folder: str, *names: str) -> str:
    return cast(str, FileSystems.join(folder, *names))


def has_folders(path: str) -> bool:
    """Whether folders are real there and can be renamed: true of disks, not of object stores."""
    return cast(bool, FileSystems.get_filesystem(path).has_dirs())


def exists(path: str) -> bool:
    return cast(bool, FileSystems.exists(path))


def match(pattern: str) -> list[FileMetadata]:
    """The files that a path or glob names, by path. A file whose own name looks like a glob is found, too."""
    if any(mark in pattern for mark in "*?[") and has_folders(pattern) and exists(pattern):
        return [FileSystems.get_filesystem(pattern).metadata(pattern)]
    (found,) = FileSystems.match([pattern])
    return sorted(found.metadata_list, key=lambda each: cast(str, each.path))


def list_files(folder: str) -> list[str]:
    """Every file under `folder`, at any depth, by path; none where there is no such folder."""
    return [each.path for each in match(join(folder, "**"))]


def open_file(path: str) -> BinaryIO:
    """A seekable stream of the file's bytes as they lie there."""
    return cast(BinaryIO, FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED))


def read_bytes(path: str) -> bytes:
    with open_file(path) as stream:
        return stream.read()


def read_json(path: str, as_type: type[T]) -> T:
    return msgspec.json.decode(read_bytes(path), type=as_type)


def write_bytes(path: str, content: bytes, *, temporary: str) -> None:
    """Writes the file whole or not at all; `temporary` is a folder on the same file system."""
    draft = join(temporary, uuid.uuid4().hex)
    with FileSystems.create(draft, compression_type=CompressionTypes.UNCOMPRESSED) as stream:
        stream.write(content)
    rename(draft, path)


def write_json(path: str, content: object, *, temporary: str) -> None:
    text = msgspec.json.format(msgspec.json.encode(content, order="deterministic"), indent=2)
    write_bytes(path, text + b"\n", temporary=temporary)


def rename(source: str, destination: str) -> None:
    """Moves a file (on a disk also a folder), over whatever file is there."""
    if has_folders(destination):
        Path(destination).parent.mkdir(parents=True, exist_ok=True)
    FileSystems.rename([source], [destination])


def delete(paths: Iterable[str]) -> None:
    """Deletes files; one that is gone already is fine."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            if exists(path):
                FileSystems.delete([path])


def delete_folder(folder: str) -> None:
    """Deletes everything under `folder`, at any depth, and on a disk the folder itself."""
    if has_folders(folder):
        delete([folder])
    else:
        delete(list_files(folder))
