from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.cache import Cache
from device_agent.errors import CacheError, CorruptBlobError, HostAwayError

BLOB = bytes(range(256)) * 40


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Source:
    """A host that serves one blob in pieces and may break off."""

    def __init__(self, data: bytes, piece: int = 1000, break_after: int | None = None) -> None:
        self.data, self._piece, self._break_after = data, piece, break_after
        self.offsets: list[int] = []

    def pull(self, sha256: str, offset: int) -> Iterator[Any]:
        self.offsets.append(offset)
        for at in range(offset, len(self.data), self._piece):
            if self._break_after is not None and at - offset >= self._break_after:
                raise HostAwayError("UNAVAILABLE", "the link broke")
            yield at, self.data[at : at + self._piece]


@pytest.fixture
def cache(tmp_path: Path) -> Any:
    return Cache(tmp_path / "cache")


def test_a_blob_is_pulled_once_and_verified(cache: Cache) -> None:
    source = Source(BLOB)

    first = cache.fetch(digest(BLOB), len(BLOB), source.pull)
    second = cache.fetch(digest(BLOB), len(BLOB), source.pull)

    assert first == second
    assert first.read_bytes() == BLOB
    assert first.stat().st_mode & 0o777 == 0o440
    assert source.offsets == [0]


def test_an_interrupted_pull_goes_on_where_it_broke(cache: Cache) -> None:
    broken, whole = Source(BLOB, break_after=4000), Source(BLOB)
    with pytest.raises(HostAwayError):
        cache.fetch(digest(BLOB), len(BLOB), broken.pull)

    path = cache.fetch(digest(BLOB), len(BLOB), whole.pull)

    assert whole.offsets == [4000]
    assert path.read_bytes() == BLOB


def test_a_pull_that_had_all_bytes_but_not_its_name_needs_no_more_bytes(
    cache: Cache, tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{digest(BLOB)}.part").write_bytes(BLOB)
    source = Source(b"")

    path = cache.fetch(digest(BLOB), len(BLOB), source.pull)

    assert path.read_bytes() == BLOB
    assert source.offsets == []


@settings(deadline=None)
@given(piece=st.integers(1, 12_000), break_after=st.integers(1, 12_000))
def test_a_blob_comes_whole_however_often_the_link_breaks(
    tmp_path_factory: pytest.TempPathFactory, piece: Any, break_after: Any
) -> None:
    cache = Cache(tmp_path_factory.mktemp("cache"))
    source = Source(BLOB, max(piece, 500), break_after)
    path = None

    while path is None:
        assert len(source.offsets) < 100
        with contextlib.suppress(HostAwayError):
            path = cache.fetch(digest(BLOB), len(BLOB), source.pull)

    assert path.read_bytes() == BLOB


@pytest.mark.parametrize(
    "data",
    [BLOB[:-1] + b"x", BLOB + b"more", b""],
    ids=["another byte", "too long", "nothing"],
)
def test_other_bytes_than_announced_are_refused_and_never_named(
    cache: Cache, tmp_path: Path, data: bytes
) -> None:
    with pytest.raises(CorruptBlobError):
        cache.fetch(digest(BLOB), len(BLOB), Source(data).pull)

    assert not (tmp_path / "cache" / digest(BLOB)[:2] / digest(BLOB)).exists()


def test_bytes_at_another_offset_than_asked_for_are_refused(cache: Cache) -> None:
    def pull(sha256: Any, offset: Any) -> Iterator[Any]:
        yield offset + 1, BLOB

    with pytest.raises(CorruptBlobError):
        cache.fetch(digest(BLOB), len(BLOB), pull)


@pytest.mark.parametrize(
    ("part", "offsets"),
    [
        (b"z" * 3000, [3000, 0]),
        (BLOB[:5000] + b"z", [5001, 0]),
        (b"z" * len(BLOB), [0]),
        (BLOB + b"more", [0]),
        (b"", [0]),
    ],
    ids=["foreign", "one byte", "foreign and whole", "longer than the blob", "empty"],
)
def test_a_part_that_is_no_beginning_of_the_blob_is_pulled_from_the_start(
    cache: Cache, tmp_path: Path, part: bytes, offsets: Any
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{digest(BLOB)}.part").write_bytes(part)
    source = Source(BLOB)

    path = cache.fetch(digest(BLOB), len(BLOB), source.pull)

    assert path.read_bytes() == BLOB
    assert source.offsets == offsets


def test_a_blob_that_is_truncated_at_the_host_is_refused_and_goes_on_once_it_is_whole(
    cache: Cache,
) -> None:
    with pytest.raises(CorruptBlobError, match=f"4000 of {len(BLOB)} bytes came"):
        cache.fetch(digest(BLOB), len(BLOB), Source(BLOB[:4000]).pull)
    source = Source(BLOB)

    path = cache.fetch(digest(BLOB), len(BLOB), source.pull)

    assert source.offsets == [4000]
    assert path.read_bytes() == BLOB


PLANTED = ["the blob", "its part", "its folder"]


@pytest.mark.parametrize("where", PLANTED)
def test_a_link_that_somebody_planted_is_never_followed(
    cache: Cache, tmp_path: Path, where: str
) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "file").write_bytes(b"somebody else's")
    folder = tmp_path / "cache"
    folder.mkdir()
    name = digest(BLOB)
    if where == "the blob":
        (folder / name[:2]).mkdir()
        (folder / name[:2] / name).symlink_to(foreign / "file")
    elif where == "its part":
        (folder / f"{name}.part").symlink_to(foreign / "file")
    else:
        (folder / name[:2]).symlink_to(foreign)

    path = cache.fetch(name, len(BLOB), Source(BLOB).pull)

    assert [file.name for file in foreign.iterdir()] == ["file"]
    assert (foreign / "file").read_bytes() == b"somebody else's"
    assert (foreign / "file").stat().st_mode & 0o200
    assert path.read_bytes() == BLOB
    assert not path.is_symlink()
    assert not path.parent.is_symlink()


def test_a_link_to_the_very_blob_is_not_taken_for_it(cache: Cache, tmp_path: Path) -> None:
    """It could be changed behind the cache's back."""
    (tmp_path / "elsewhere").write_bytes(BLOB)
    folder = tmp_path / "cache" / digest(BLOB)[:2]
    folder.mkdir(parents=True)
    (folder / digest(BLOB)).symlink_to(tmp_path / "elsewhere")

    path = cache.fetch(digest(BLOB), len(BLOB), Source(BLOB).pull)

    assert not path.is_symlink()
    assert path.read_bytes() == BLOB


@pytest.mark.parametrize("name", [f"{digest(BLOB)}.part", f"{digest(BLOB)[:2]}/{digest(BLOB)}"])
@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_is_removed_and_nobody_waits_for_it(
    cache: Cache, tmp_path: Path, name: str, kind: str
) -> None:
    path = tmp_path / "cache" / name
    path.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        (path / "deep").mkdir(parents=True)

    assert cache.fetch(digest(BLOB), len(BLOB), Source(BLOB).pull).read_bytes() == BLOB


def test_the_blob_used_last_is_the_newest_whatever_the_clock_says(tmp_path: Path) -> None:
    """A board without a battery may have pulled it in 2099 and use it in 1970."""
    cache = Cache(tmp_path, quota_bytes=25_000)
    blobs = [bytes([n]) * 10_000 for n in range(3)]
    first, second, third = (digest(blob) for blob in blobs)
    for blob in blobs[:2]:
        cache.fetch(digest(blob), len(blob), Source(blob).pull)
    os.utime(tmp_path / second[:2] / second, (4e9, 4e9))

    cache.fetch(first, 10_000, Source(blobs[0]).pull)
    cache.fetch(third, 10_000, Source(blobs[2]).pull)

    assert (tmp_path / first[:2] / first).exists()
    assert not (tmp_path / second[:2] / second).exists()


def test_a_disk_with_less_room_than_the_quota_makes_room_too(tmp_path: Path) -> None:
    room = [30_000_000]
    cache = Cache(tmp_path, free_bytes=lambda _: room[0])
    old, new = b"o" * 10_000, b"n" * 10_000
    path = cache.fetch(digest(old), 10_000, Source(old).pull)
    room[0] = 4 << 20

    cache.fetch(digest(new), 10_000, Source(new).pull)

    assert not path.exists()


def test_a_disk_that_never_takes_the_blob_is_said_before_a_byte_comes(tmp_path: Path) -> None:
    source = Source(BLOB)
    cache = Cache(tmp_path, free_bytes=lambda _: (4 << 20) + 100)

    with pytest.raises(CacheError, match="the disk has 100 to spare"):
        cache.fetch(digest(BLOB), len(BLOB), source.pull)

    assert source.offsets == []


_ON_DISK = """
import hashlib, os
from device_agent.cache import Cache
from device_agent.errors import CacheError
blob = os.urandom(3 << 20)
name = hashlib.sha256(blob).hexdigest()
cache = Cache(DISK / "cache")
asked = []
def pull(sha256, offset):
    asked.append(offset)
    for at in range(offset, len(blob), 1 << 18):
        yield at, blob[at : at + (1 << 18)]
def fetch(pull=pull, name=name):
    try:
        print(cache.fetch(name, len(blob), pull).read_bytes() == blob)
    except CacheError as error:
        print(error)
"""


def test_a_disk_that_runs_full_in_the_middle_of_a_pull_keeps_the_part(
    small_disk: Any,
) -> None:
    full, kept, mended, asked = small_disk.run(
        f"""{_ON_DISK}
def filling(sha256, offset):
    for number, piece in enumerate(pull(sha256, offset)):
        if number == 4:
            with (DISK / "filler").open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    pass
        yield piece
fetch(filling)
print((DISK / "cache" / (name + ".part")).stat().st_size >= 1 << 20)
(DISK / "filler").unlink()
asked.clear()
fetch()
print(asked[0] >= 1 << 20, len(asked))
"""
    )

    assert "cannot be kept on this device: No space left" in full
    assert (kept, mended, asked) == ("True", "True", "True 1")


def test_a_disk_that_became_read_only_still_serves_what_it_holds(
    small_disk: Any,
) -> None:
    pulled, again, other = small_disk.run(
        f"""{_ON_DISK}
import subprocess
fetch()
subprocess.run(["mount", "-o", "remount,ro", str(DISK)], check=True)
fetch()
fetch(name="0" * 64)
"""
    )

    assert (pulled, again) == ("True", "True")
    assert "cannot be kept on this device: Read-only file system" in other


def test_a_blob_that_rotted_on_the_card_is_pulled_again(cache: Cache) -> None:
    path = cache.fetch(digest(BLOB), len(BLOB), Source(BLOB).pull)
    path.chmod(0o600)
    path.write_bytes(b"rot" + BLOB[3:])

    again = cache.fetch(digest(BLOB), len(BLOB), Source(BLOB).pull)

    assert again.read_bytes() == BLOB


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "A" * 64, "0" * 63])
def test_a_name_that_is_no_sha256_touches_no_file(cache: Cache, tmp_path: Path, name: str) -> None:
    with pytest.raises(CorruptBlobError):
        cache.fetch(name, 3, Source(b"abc").pull)

    assert list(tmp_path.rglob("*")) == []


def test_what_was_used_longest_ago_makes_room(tmp_path: Path) -> None:
    cache = Cache(tmp_path, quota_bytes=25_000)
    blobs = [bytes([n]) * 10_000 for n in range(3)]
    old, used, new = [digest(blob) for blob in blobs]
    for age, blob in ((30, blobs[0]), (20, blobs[1])):
        path = cache.fetch(digest(blob), len(blob), Source(blob).pull)
        os.utime(path, (age, age))
    os.utime(tmp_path / old[:2] / old, (10, 10))
    os.utime(tmp_path / used[:2] / used, (20, 20))

    cache.fetch(new, 10_000, Source(blobs[2]).pull)

    assert not (tmp_path / old[:2] / old).exists()
    assert (tmp_path / used[:2] / used).exists()
    assert (tmp_path / new[:2] / new).exists()


def test_the_files_of_one_job_do_not_make_room_for_each_other(tmp_path: Path) -> None:
    cache = Cache(tmp_path, quota_bytes=25_000)
    model, inputs, old = (bytes([n]) * 10_000 for n in range(3))
    job = {digest(model), digest(inputs)}
    first = cache.fetch(digest(model), 10_000, Source(model).pull, spare=job)
    cache.fetch(digest(old), 10_000, Source(old).pull)
    os.utime(first, (10, 10))

    second = cache.fetch(digest(inputs), 10_000, Source(inputs).pull, spare=job)

    assert first.exists()
    assert second.exists()
    assert not (tmp_path / digest(old)[:2] / digest(old)).exists()


def test_files_of_one_job_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    cache = Cache(tmp_path, quota_bytes=15_000)
    model, inputs = b"m" * 10_000, b"i" * 10_000
    job = {digest(model), digest(inputs)}
    cache.fetch(digest(model), 10_000, Source(model).pull, spare=job)

    with pytest.raises(CacheError, match="beside 10000 bytes of the same job"):
        cache.fetch(digest(inputs), 10_000, Source(inputs).pull, spare=job)


def test_a_blob_beyond_the_quota_is_refused_before_a_byte_comes(tmp_path: Path) -> None:
    source = Source(BLOB)

    with pytest.raises(CacheError, match="may hold 100"):
        Cache(tmp_path, quota_bytes=100).fetch(digest(BLOB), len(BLOB), source.pull)

    assert source.offsets == []


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")

    with pytest.raises(CacheError, match="cannot be kept"):
        Cache(tmp_path / "cache").fetch(digest(BLOB), len(BLOB), Source(BLOB).pull)
