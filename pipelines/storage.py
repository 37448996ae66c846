"""Files on anything that Beam's FileSystems reach: local paths, `gs://`, `s3://`, `hdfs://`.

A file written here is whole or absent: where there are folders its bytes go to a temporary name outside of every
folder that is read, and are renamed; an object appears when all of it has arrived. Beam's own transparent
decompression is off throughout: names are no proof of content. Where a file cannot be reached every function raises
`OSError`, of which Beam's own errors are.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import io
import os
import re
import shutil
import stat
import tempfile
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

import msgspec
from apache_beam.io.filesystem import CompressionTypes, FileMetadata, FileSystem
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

T = TypeVar("T")

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_TOKEN = re.compile(r"\*\*|\*|\[!?+\]?+[^\]]*\]|.", re.DOTALL)
"""What a glob is made of, as Beam reads it."""

# Without any, S3 is refused; a Beam job puts its own in their place, a worker has those of its job already.
if FileSystems._pipeline_options is None:
    FileSystems.set_options(PipelineOptions([]))


class StoreError(OSError):
    """What the client of an object store has raised in its own way: anything but that there is no such file."""


def absolute(path: str) -> str:
    """`path` such that it means the same in every process: local ones are made absolute."""
    if "://" in path:
        return path
    # Of pathlib, resolve() would follow links, and expanduser() raises for a user that there is not.
    return os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111


def join(folder: str, *names: str) -> str:
    return cast(str, FileSystems.join(folder, *names))


def has_folders(path: str) -> bool:
    """Whether folders are real there and can be renamed: true of disks, not of object stores."""
    return cast(bool, FileSystems.get_filesystem(path).has_dirs())


def exists(path: str) -> bool:
    with _os_errors(path):
        return cast(bool, FileSystems.exists(path))


def match(pattern: str) -> list[FileMetadata]:
    """The files that a path or glob names, by path. A file whose own name looks like a glob is found, too."""
    if any(mark in pattern for mark in "*?[") and has_folders(pattern) and exists(pattern):
        return [FileSystems.get_filesystem(pattern).metadata(pattern)]
    (found,) = FileSystems.match([pattern])
    return sorted(found.metadata_list, key=lambda each: cast(str, each.path))


def find(pattern: str) -> list[FileMetadata]:
    """What `match` gives for an absolute path or glob; but of a local glob nothing is passed over.

    Links to folders are followed; a folder that has several names is gone through under one of them. Raises `OSError`
    that names what may be or hold a match and cannot be looked at: a folder that cannot be listed, a link to nothing.
    """
    if "://" in pattern or not any(mark in pattern for mark in "*?[") or exists(pattern):
        return match(pattern)
    is_match = _matcher(pattern)
    tokens = _TOKEN.findall(pattern)
    # Which beginnings of the pattern a folder's path matches says all of what can match below it. One that a star
    # follows says no more than the one with that star.
    beginnings = [
        _matcher("".join(tokens[:end]))
        for end, (token, following) in enumerate(pairwise([*tokens, ""]), start=1)
        if token[0] in "/*?[" and not following.startswith("*")
    ]
    start = re.split(r"[*?\[]", pattern, maxsplit=1)[0].rpartition("/")[0] + "/"
    folders = deque([start] if Path(start).is_dir() else [])
    seen: set[tuple[Path, tuple[bool, ...]]] = set()
    found = []
    while folders:
        folder = folders.popleft()
        key = (Path(folder).resolve(), tuple(begins(folder) for begins in beginnings))
        if key in seen:
            continue
        seen.add(key)
        for entry in _entries(folder):
            path = entry.path
            may_hold = any(begins(f"{path}/") for begins in beginnings)
            status = _status(entry) if may_hold or is_match(path) else None
            if status is None:
                continue
            if not stat.S_ISDIR(status.st_mode):
                if is_match(path):
                    found.append(FileMetadata(path, status.st_size, status.st_mtime))
            elif may_hold:
                # Links come last: a folder goes by its own name if it can.
                (folders.append if entry.is_symlink() else folders.appendleft)(f"{path}/")
    return sorted(found, key=lambda each: cast(str, each.path))


def _matcher(pattern: str) -> Callable[[str], bool]:
    expression: str = FileSystem.translate_pattern(pattern)
    try:
        compiled = re.compile(expression)
    except re.error as error:
        raise ValueError(str(error)) from error
    return lambda path: compiled.match(path) is not None


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []  # it has disappeared since it was listed
    except OSError as error:
        raise OSError(f"{folder} may hold such files and cannot be listed ({error.strerror})") from error


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not entry.is_symlink():
            return None  # it has disappeared since it was listed
        what = "is a link that cannot be followed" if entry.is_symlink() else "cannot be looked at"
        raise OSError(f"{entry.path} {what} ({error.strerror})") from error


def list_files(folder: str) -> list[str]:
    """Every file under `folder`, at any depth, by path; none where there is no such folder."""
    return [each.path for each in match(join(folder, "**"))]


def open_file(path: str) -> BinaryIO:
    """A seekable stream of the file's bytes as they lie there."""
    with _os_errors(path):
        stream = FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
    return cast(BinaryIO, stream if has_folders(path) else io.BufferedReader(_Object(path, stream)))


def read_bytes(path: str) -> bytes:
    with open_file(path) as stream:
        return stream.read()


def read_json(path: str, as_type: type[T]) -> T:
    return msgspec.json.decode(read_bytes(path), type=as_type)


def write_bytes(path: str, content: bytes | memoryview, *, temporary: str) -> None:
    """Writes the file whole or not at all; `temporary` is a folder on the same file system.

    What is there and no plain file, a link or a device, is written to as it is: it cannot be replaced by one.
    """
    if not has_folders(path) or _is_special(path):
        _create(path, content)
        return
    draft = join(temporary, uuid.uuid4().hex)
    try:
        _create(draft, content)
        rename(draft, path)
    except OSError:
        with contextlib.suppress(OSError):
            Path(draft).unlink()
        raise


def write_json(path: str, content: object, *, temporary: str) -> None:
    text = msgspec.json.format(msgspec.json.encode(content, order="deterministic"), indent=2)
    write_bytes(path, text + b"\n", temporary=temporary)


def writable_folder(path: str) -> Path:
    """A local folder, made where there is none. Raises `OSError` where no file can be written to it.

    For jobs that write at their end, so that they say so at their start.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
    return folder


@contextlib.contextmanager
def replaced(folder: str) -> Iterator[Path]:
    """A folder to write to, which takes the place of the local `folder`, which is there, when all is written.

    Who reads `folder` in between, or kills us, finds the former files, whole. What else is in it stays.
    """
    place = Path(folder).resolve()
    draft, away = (place.with_name(f".{place.name}.{kind}") for kind in ("new", "former"))
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        yield draft
        for each in place.iterdir():
            if not (draft / each.name).exists():
                (shutil.copytree if each.is_dir() else shutil.copy2)(each, draft / each.name)
        swap_folders(str(draft), str(place), away=str(away))
    finally:
        # Either of them is what was there before, if it has come that far.
        for each in (draft, away):
            shutil.rmtree(each, ignore_errors=True)


def is_folder(path: str | Path) -> bool:
    """Whether there is a local folder; where that cannot be looked up there is none."""
    return os.path.isdir(path)  # noqa: PTH112 - that of pathlib raises where it may not look


def is_file(path: str | Path) -> bool:
    """Whether there is a local file; where that cannot be looked up there is none."""
    return os.path.isfile(path)  # noqa: PTH113 - that of pathlib raises where it may not look


def rename(source: str, destination: str) -> None:
    """Moves a file (on a disk also a folder), over whatever file is there."""
    if has_folders(destination):
        Path(destination).parent.mkdir(parents=True, exist_ok=True)
    FileSystems.rename([source], [destination])


def move_objects(sources: Sequence[str], destinations: Sequence[str]) -> None:
    """Moves objects of an object store, one after the other, over whatever is there."""
    if sources:
        with _os_errors(destinations[0]):
            FileSystems.rename(list(sources), list(destinations))


def swap_folders(one: str, other: str, *, away: str) -> None:
    """Two folders on one disk change their names, in one step where the system can: no name is ever without one.

    Where it cannot, `other` is without a folder for a moment, and what was there ends under the name `away`.
    """
    exchange = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # Linux; not in Python's own os
    if exchange is not None:
        if exchange(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOSYS):  # what a file system says that cannot
            raise OSError(number, os.strerror(number), one, None, other)
    rename(other, away)
    rename(one, other)


@contextlib.contextmanager
def locked(path: str, *, wait: bool) -> Iterator[None]:
    """Holds the lock of this name, which the system releases when the process ends, however it ends.

    Raises `BlockingIOError` where another process holds it and we do not `wait`. An object store has no such locks:
    there this does nothing.
    """
    if not has_folders(path):
        yield
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    # The file stays: if it were deleted, one process could hold the old file and another one a new one.
    with Path(path).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def delete(paths: Iterable[str]) -> None:
    """Deletes files; one that is gone already is fine."""
    found = list(paths)
    if found and not has_folders(found[0]):
        FileSystems.delete(found)  # many at a time; an object store does not mind what is gone
        return
    for path in found:
        with contextlib.suppress(FileNotFoundError):
            if exists(path):
                FileSystems.delete([path])


def delete_folder(folder: str) -> None:
    """Deletes everything under `folder`, at any depth, and on a disk the folder itself."""
    if has_folders(folder):
        delete([folder])
    else:
        delete(list_files(folder))


class _Object(io.RawIOBase):
    """An object's bytes. Each read is a request, which can fail as the first one can."""

    def __init__(self, path: str, stream: io.BufferedIOBase) -> None:
        self._path = path
        self._stream = stream

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        with _os_errors(self._path):
            return self._stream.readinto(buffer)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def close(self) -> None:
        self._stream.close()
        super().close()


def _create(path: str, content: bytes | memoryview) -> None:
    with _os_errors(path), FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as stream:
        stream.write(content)


def _is_special(path: str) -> bool:
    try:
        return not stat.S_ISREG(Path(path).lstat().st_mode)
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _os_errors(path: str) -> Iterator[None]:
    """What the clients of object stores raise in their own ways becomes `StoreError`."""
    try:
        yield
    except (OSError, ValueError):
        raise
    except Exception as error:
        raise StoreError(f"{path}: {getattr(error, 'message', None) or error}") from error
