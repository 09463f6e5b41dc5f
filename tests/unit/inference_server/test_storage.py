"""Nothing is read or written outside the allowed roots, however it is spelled."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from obstore.store import LocalStore

from inference_server.errors import AccessDenied, ContentChanged, InferenceError, InvalidInput, NotFound
from inference_server.storage.storage import Storage
from inference_server.storage.stored import StoredObject

REMOTE = ("s3://bucket", "gs://other/slides/", "https://host.example/data")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "slide.tif").write_bytes(b"inside")
    (tmp_path / "root" / "a b%41.tif").write_bytes(b"odd")
    (tmp_path / "root-evil").mkdir()
    (tmp_path / "root-evil" / "slide.tif").write_bytes(b"beside")
    (tmp_path / "secret.tif").write_bytes(b"outside")
    (tmp_path / "root" / "link.tif").symlink_to(tmp_path / "secret.tif")
    (tmp_path / "root" / "folder").symlink_to(tmp_path)
    (tmp_path / "root" / "circle").symlink_to(tmp_path / "root" / "circle")
    (tmp_path / "root" / "inner.tif").symlink_to(tmp_path / "root" / "slide.tif")
    return tmp_path


def storage_of(folder: Path) -> Storage:
    return Storage(read_roots=(str(folder / "root"),), write_roots=(str(folder / "root"),))


@pytest.mark.parametrize(
    "spelling", ["{}/root/slide.tif", "file://{}/root/slide.tif", "file://localhost{}/root/slide.tif", "FILE://{}/root/%73lide.tif"]
)
async def test_a_file_under_a_root_is_read_however_it_is_named(folder: Path, spelling: str) -> None:
    assert await storage_of(folder).read(spelling.format(folder), most_bytes=100) == b"inside"


async def test_a_link_that_stays_inside_is_followed(folder: Path) -> None:
    assert await storage_of(folder).read(str(folder / "root" / "inner.tif"), most_bytes=100) == b"inside"


async def test_a_file_that_is_replaced_after_it_was_measured_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, path = storage_of(folder), folder / "root" / "slide.tif"
    original = storage.open

    async def replaced(uri: str, *, written: bool = False) -> StoredObject:
        found = await original(uri, written=written)
        path.write_bytes(b"far more than was measured")
        return found

    monkeypatch.setattr(storage, "open", replaced)
    with pytest.raises(ContentChanged, match="was replaced or removed while it was read"):
        await storage.read(str(path), most_bytes=10)


async def test_a_plain_path_is_not_decoded(folder: Path) -> None:
    assert await storage_of(folder).read(str(folder / "root" / "a b%41.tif"), most_bytes=100) == b"odd"


OUTSIDE = [
    "{}/secret.tif",
    "{}/root-evil/slide.tif",
    "{}/root/../secret.tif",
    "{}/root/link.tif",
    "{}/root/folder/secret.tif",
    "file://{}/secret.tif",
    "file://{}/root/../secret.tif",
    "file://{}/root/%2e%2e/secret.tif",
    "file://{}/root%2f..%2fsecret.tif",
    "../secret.tif",
    "/etc/passwd",
    "~/secret.tif",
]


@pytest.mark.parametrize("spelling", OUTSIDE)
async def test_a_file_outside_the_roots_is_neither_read_nor_written(folder: Path, spelling: str) -> None:
    uri = spelling.format(folder)
    with pytest.raises(AccessDenied, match="INFERENCE_READ_ROOTS"):
        await storage_of(folder).read(uri, most_bytes=100)
    with pytest.raises(AccessDenied, match="INFERENCE_WRITE_ROOTS"):
        await storage_of(folder).write(uri, b"changed")
    assert (folder / "secret.tif").read_bytes() == b"outside"


@pytest.mark.parametrize(
    "spelling",
    [
        "file://host{}/root/slide.tif",
        "file://127.0.0.1{}/root/slide.tif",
        "file://{}/root/%00.tif",
        "{}/root/\x00.tif",
        "{}/root/a\nb.tif",
        "{}/root/a\x7f.tif",
        "{}/root/" + "x" * 300,
        "{}/root",
        "ftp://host{}/root/slide.tif",
        "data://{}/root/slide.tif",
        "",
    ],
)
async def test_what_names_no_place_is_an_error_of_the_caller(folder: Path, spelling: str) -> None:
    with pytest.raises(InvalidInput):
        await storage_of(folder).read(spelling.format(folder), most_bytes=100)


@pytest.mark.parametrize("spelling", ["~nobody-of-this-name/x", "{}/root/circle"])
async def test_what_cannot_be_followed_is_an_error_of_the_tree(folder: Path, spelling: str) -> None:
    with pytest.raises(InferenceError):
        await storage_of(folder).read(spelling.format(folder), most_bytes=100)


ALLOWED = [
    "s3://bucket/a.svs",
    "s3://bucket/a/b%20c.svs",
    "S3://bucket/a.svs",
    "gs://other/slides/a.svs",
    "gs://other/%73lides/a.svs",
    "https://host.example/data/a.svs",
]


@pytest.mark.parametrize("uri", ALLOWED)
def test_a_url_below_a_root_is_let_through(uri: str) -> None:
    Storage(read_roots=(), write_roots=REMOTE).check_writable(uri)
    with pytest.raises(AccessDenied, match=r"not under an allowed root \(0 set\)"):
        Storage(read_roots=(), write_roots=()).check_writable(uri)


DENIED = [
    "s3://bucket-evil/a.svs",
    "s3://bucket.evil/a.svs",
    "s3://BUCKET/a.svs",
    "gs://bucket/a.svs",
    "gs://other/slides-evil/a.svs",
    "gs://other/a.svs",
    "gs://other/",
    "http://host.example/data/a.svs",
    "https://host.example:8443/data/a.svs",
    "https://host.example.evil/data/a.svs",
    "https://evil/https://host.example/data/a.svs",
]


@pytest.mark.parametrize("uri", DENIED)
async def test_a_url_beside_the_roots_is_denied(uri: str) -> None:
    storage = Storage(read_roots=REMOTE, write_roots=REMOTE)
    with pytest.raises((AccessDenied, InvalidInput)):
        storage.check_writable(uri)
    with pytest.raises((AccessDenied, InvalidInput)):
        await storage.open(uri)


AMBIGUOUS = [
    "gs://other/slides/../secret",
    "gs://other/slides/%2e%2e/secret",
    "gs://other/slides/%2E%2E%2Fsecret",
    "gs://other/slides/.\n./secret",
    "gs://other/slides/./a",
    "gs://other/slides//a",
    "gs://other/slides/..\\secret",
    "gs://other/slides/a?versionId=1",
    "gs://other/slides/a#part",
    "gs://other/slides/a%0a",
    "https://host.example@evil/data/a.svs",
    "https://user:word@host.example/data/a.svs",
    "https://[broken/data/a.svs",
    "s3:///a.svs",
]


@pytest.mark.parametrize("uri", AMBIGUOUS)
def test_a_url_that_can_be_read_in_two_ways_is_refused(uri: str) -> None:
    with pytest.raises(InvalidInput):
        Storage(read_roots=(), write_roots=REMOTE).check_writable(uri)


async def test_a_signed_url_is_refused_without_its_signature_being_told() -> None:
    storage = Storage(read_roots=("https://host/slides",), write_roots=())
    with pytest.raises(InvalidInput, match=r"signed URLs are not taken; name it as s3://bucket/key") as refused:
        await storage.open("https://host/slides/a.svs?X-Amz-Signature=abcdef")
    assert "abcdef" not in str(refused.value)


SECRETS = [
    "https://user:abcdef@host/slides/a.svs",
    "http://user:abcdef@host:x/slides/a.svs",
    "ftp://user:abcdef@host/slides/a.svs",
    "file://user:abcdef@host/slides/a.svs",
    "s3://slides/a.svs?X-Amz-Signature=abcdef",
    "s3://slides/a.svs#abcdef",
    "ftp://host/slides/a.svs?X-Amz-Signature=abcdef",
    "https://[broken/slides/a.svs?X-Amz-Signature=abcdef",
    "HTTPS://host/slides/a.svs?X-Amz-Signature=abcdef",
]


@pytest.mark.parametrize("uri", SECRETS)
async def test_what_may_be_secret_in_a_url_is_not_told(uri: str) -> None:
    storage = Storage(read_roots=("https://host/slides", "s3://slides"), write_roots=("https://host/slides", "s3://slides"))
    for refusing in (lambda: storage.open(uri), lambda: storage.write(uri, b"")):
        with pytest.raises(InvalidInput) as refused:
            await refusing()
        assert "abcdef" not in str(refused.value)


ALIKE = [
    ("https://Host.example:443/data", "https://host.example/data/a.svs"),
    ("https://host.example/data", "HTTPS://HOST.example:443/data/a.svs"),
    ("http://host.example:80/data", "http://host.example:/data/a.svs"),
    ("http://[::1]:80/data", "http://[::1]/data/a.svs"),
    ("https://bücher.example/data", "https://xn--bcher-kva.example/data/a.svs"),
]


@pytest.mark.parametrize(("root", "uri"), ALIKE)
def test_a_web_server_is_the_same_however_its_host_and_port_are_spelled(root: str, uri: str) -> None:
    Storage(read_roots=(), write_roots=(root,)).check_writable(uri)


@pytest.mark.parametrize(
    ("root", "uri"),
    [
        ("http://host.example:443/data", "https://host.example/data/a.svs"),
        ("https://host.example/data", "https://host.example:80/data/a.svs"),
        ("http://[::1]:8080/data", "http://[::2]:8080/data/a.svs"),
    ],
)
def test_another_port_or_address_is_another_server(root: str, uri: str) -> None:
    with pytest.raises(AccessDenied):
        Storage(read_roots=(), write_roots=(root,)).check_writable(uri)


async def test_a_local_root_allows_no_url_and_a_url_root_no_file(folder: Path) -> None:
    with pytest.raises(AccessDenied):
        await storage_of(folder).open("s3://bucket/a.svs")
    with pytest.raises(AccessDenied):
        await Storage(read_roots=REMOTE, write_roots=()).open(str(folder / "root" / "slide.tif"))


async def test_a_file_that_is_not_there_is_not_found(folder: Path) -> None:
    for name in ("absent.tif", "slide.tif/absent.tif", "absent/absent.tif"):
        with pytest.raises(NotFound):
            await storage_of(folder).open(str(folder / "root" / name))


LONG = "x" * 300
NEVER = {"slide.tif/new.json": "Not a directory", "": "Is a directory", LONG: "File name too long", f"new/{LONG}": "File name too long"}


@pytest.mark.parametrize("name", NEVER)
async def test_a_place_that_can_be_no_file_is_told_before_and_when_it_is_written(folder: Path, name: str) -> None:
    uri = str(folder / "root" / name)
    with pytest.raises(InvalidInput, match=NEVER[name]):
        storage_of(folder).check_writable(uri)
    with pytest.raises(InvalidInput, match=NEVER[name]):
        await storage_of(folder).write(uri, b"{}")


async def test_a_place_that_the_system_protects_is_denied() -> None:
    with pytest.raises(AccessDenied, match=r"may not write /sys/lamina/new.json \(.*Grant its user or role write access"):
        await Storage(read_roots=(), write_roots=("/sys",)).write("/sys/lamina/new.json", b"{}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_denied_before_anything_is_written(folder: Path) -> None:
    (folder / "root").chmod(0o555)
    with pytest.raises(AccessDenied, match=r"\(Permission denied\)"):
        storage_of(folder).check_writable(str(folder / "root" / "new" / "new.json"))


def test_folders_that_are_not_there_yet_are_no_hindrance_and_are_not_made(folder: Path) -> None:
    storage_of(folder).check_writable(str(folder / "root" / "new" / "deep" / "new.json"))
    assert not (folder / "root" / "new").exists()


async def test_a_file_over_the_limit_names_the_limit(folder: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        await storage_of(folder).read(str(folder / "root" / "slide.tif"), most_bytes=3, limit="document_bytes")
    assert caught.value.limit == "document_bytes"


async def test_ranges_of_a_file_are_read_alike_with_and_without_another_thread(folder: Path) -> None:
    storage = storage_of(folder)
    found = await storage.open(str(folder / "root" / "slide.tif"))
    starts, ends = [0, 2, 5], [3, 2, 6]
    assert [b"ins", b"", b"e"] == storage.read_ranges_here(found, starts, ends)
    assert [b"ins", b"e"] == [bytes(each) for each in await storage.read_ranges(found, [0, 5], [3, 6])]


async def test_each_range_of_a_file_can_have_room_before_it_that_changes_no_other(folder: Path) -> None:
    storage = storage_of(folder)
    found = await storage.open(str(folder / "root" / "slide.tif"))
    views = storage.read_ranges_here(found, [3, 0, 3, 1], [6, 3, 6, 2], room=2)
    for view in views:
        view[:2] = b"> "
    assert [b"> ide", b"> ins", b"> ide", b"> n"] == views


async def test_a_file_that_is_as_it_was_found_is_read_without_asking_the_store_again(folder: Path) -> None:
    found = await storage_of(folder).open(str(folder / "root" / "slide.tif"))
    nowhere = replace(found, store=LocalStore(prefix=str(folder / "root-evil")))
    assert [b"ins"] == storage_of(folder).read_ranges_here(nowhere, [0], [3])


async def test_a_file_that_another_of_the_same_size_and_time_replaces_is_told(folder: Path) -> None:
    storage, path, other = storage_of(folder), folder / "root" / "slide.tif", folder / "root" / "other.tif"
    found = await storage.open(str(path))
    other.write_bytes(b"others")
    os.utime(other, ns=(path.stat().st_mtime_ns,) * 2)
    other.rename(path)
    with pytest.raises(ContentChanged):
        storage.read_ranges_here(found, [0], [3])


@pytest.mark.parametrize(("change", "reason"), [(os.unlink, "No such file"), (lambda path: os.truncate(path, 4), "shorter than it was")])
async def test_a_file_that_vanishes_or_shrinks_while_it_is_read_is_told(folder: Path, change: Callable[[Path], None], reason: str) -> None:
    storage = storage_of(folder)
    found = await storage.open(str(folder / "root" / "slide.tif"))
    change(folder / "root" / "slide.tif")
    with pytest.raises(ContentChanged):
        storage.read_ranges_here(found, [3], [6])
