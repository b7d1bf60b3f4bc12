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


def test_after_a_bad_part_the_next_pull_starts_again(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{digest(BLOB)}.part").write_bytes(b"z" * 3000)
    with pytest.raises(CorruptBlobError):
        cache.fetch(digest(BLOB), len(BLOB), Source(BLOB).pull)
    source = Source(BLOB)

    cache.fetch(digest(BLOB), len(BLOB), source.pull)

    assert source.offsets == [0]


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
