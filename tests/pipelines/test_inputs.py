"""Which files an `--input` names."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.cli import main
from pipelines.errors import UserError
from pipelines.plan import find_sources


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Two days, a file beside them, and a folder elsewhere."""
    for name in ("logs/03-02/a.jsonl", "logs/03-03/b.jsonl", "logs/03-03/deep/c.jsonl", "logs/d.jsonl", "old/e.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return tmp_path / "logs"


def found(pattern: str) -> list[str]:
    """The matches, from the folder `logs` on."""
    return [source.path.partition("/logs/")[2] for source in find_sources([pattern])]


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes a folder one that may not be listed: what the system says to anybody but root."""

    def close(folder: Path) -> None:
        real = os.scandir

        def scandir(path: str) -> object:
            if Path(path) == folder:
                raise PermissionError(13, "Permission denied", path)
            return real(path)

        monkeypatch.setattr(os, "scandir", scandir)

    return close


@pytest.mark.parametrize(
    "pattern",
    [
        *("*", "*/*.jsonl", "**", "**/*.jsonl", "**.jsonl", "03-0[23]/*", "03-0[!3]/*", "03-0?/[a-c].jsonl"),
        *("03-03/**", "0**c.jsonl", "d.jsonl", "d.json?", "[", "*/deep/*", "03-02?a.jsonl", "***", "x/*"),
    ],
)
def test_a_glob_means_what_it_means_to_beam(logs: Path, pattern: str) -> None:
    there = [vars(each) for each in storage.match(f"{logs}/{pattern}")]
    assert [vars(each) for each in storage.find(f"{logs}/{pattern}")] == there


def test_a_file_whose_own_name_looks_like_a_glob_is_found(logs: Path) -> None:
    (logs / "x[1].jsonl").write_text("{}")
    assert found(f"{logs}/x[1].jsonl") == ["x[1].jsonl"]


@pytest.mark.parametrize("pattern", ["*/*.jsonl", "**/*.jsonl", "03-0[1]/e*", "03-01/*"])
def test_folders_that_are_links_are_entered(logs: Path, pattern: str) -> None:
    (logs / "03-01").symlink_to("../old")
    assert "03-01/e.jsonl" in found(f"{logs}/{pattern}")


def test_of_the_names_of_a_folder_one_is_used_and_its_own_if_that_matches(logs: Path) -> None:
    (logs / "00-latest").symlink_to("03-02")
    (logs / "03-01").symlink_to("../old")
    (logs / "old").symlink_to("../old")
    assert found(f"{logs}/*/*.jsonl") == ["03-01/e.jsonl", "03-02/a.jsonl", "03-03/b.jsonl"]
    # Here only the link has the name that is asked for.
    assert found(f"{logs}/**latest/*") == ["00-latest/a.jsonl"]


@pytest.mark.parametrize(
    ("pattern", "by_links"),
    [
        ("**", []),
        ("**/c.jsonl", []),
        ("**/*.jsonl", ["03-03/up/d.jsonl"]),  # without the link only one further down matches
        ("*/*/*/*.jsonl", ["03-03/deep/here/c.jsonl", "03-03/up/03-02/a.jsonl", "03-03/up/03-03/b.jsonl"]),
    ],
)
def test_links_that_point_upwards_come_to_an_end(logs: Path, pattern: str, by_links: list[str]) -> None:
    before = found(f"{logs}/{pattern}") if pattern.startswith("**") else []
    (logs / "03-03" / "up").symlink_to("..")
    (logs / "03-03" / "deep" / "here").symlink_to(".")
    assert found(f"{logs}/{pattern}") == sorted(before + by_links)


@pytest.mark.parametrize("pattern", ["*/*.jsonl", "**/*.jsonl"])
def test_a_folder_that_may_not_be_listed_is_a_mistake(logs: Path, closed: Callable[[Path], None], pattern: str) -> None:
    closed(logs / "03-02")
    with pytest.raises(UserError, match=r"--input .*: \S*/03-02/ may hold .* listed \(Permission denied\)\.$"):
        find_sources([f"{logs}/{pattern}"])
    assert [each.path for each in storage.match(f"{logs}/*/*.jsonl")] == [f"{logs}/03-03/b.jsonl"]


@pytest.mark.parametrize("pattern", ["*.jsonl", "03-03/*.jsonl", "*3/*.jsonl", "*/deep/*"])
def test_a_folder_that_can_hold_no_match_is_not_entered(
    logs: Path, closed: Callable[[Path], None], pattern: str
) -> None:
    (logs / "03-02").rename(logs / "private")
    (logs / "private" / "deeper").mkdir()
    closed(logs / ("private/deeper" if "deep/" in pattern else "private"))
    assert found(f"{logs}/{pattern}")


@pytest.mark.parametrize("name", ["lost.jsonl", "03-01"])
@pytest.mark.parametrize("target", ["nowhere", "lost.jsonl", "03-01"])
def test_a_link_that_cannot_be_followed_is_a_mistake(logs: Path, name: str, target: str) -> None:
    (logs / name).symlink_to(target)
    with pytest.raises(UserError, match=rf"/{name} is a link that cannot be followed \("):
        find_sources([f"{logs}/*.jsonl" if name == "lost.jsonl" else f"{logs}/*/*.jsonl"])
    assert found(f"{logs}/03-0[23]/*.jsonl") == ["03-02/a.jsonl", "03-03/b.jsonl"]


def test_a_class_of_characters_that_is_none_is_a_mistake(logs: Path) -> None:
    with pytest.raises(UserError, match=r"Cannot look for --input .*bad character range z-a"):
        find_sources([f"{logs}/[z-a]*"])


@pytest.mark.parametrize("pattern", ["pipe", "*"])
def test_a_pipe_is_a_mistake(tmp_path: Path, capfd: pytest.CaptureFixture[str], pattern: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert main(["label", "--input", f"{tmp_path}/{pattern}", "--output", str(tmp_path / "out")]) == 2
    said = f"--input {tmp_path}/pipe is a pipe, which cannot be read twice: write it to a file first.\n"
    assert capfd.readouterr().err.endswith(said)
