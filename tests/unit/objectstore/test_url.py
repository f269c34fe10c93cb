"""A store's URL is the store, whatever its name is."""

import os
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headway.errors import UsageError
from headway.objectstore import open_store
from headway.objectstore.folder import FolderStore

ODD = ("my runs", "50%", "a%20b", "#1", "what?", "größe", "日本", "a:b", "a+b", "a&b=c", "~", "x\ny", "\udcff")
"""Names of folders that a URL has to escape."""


@pytest.mark.parametrize("name", ODD)
def test_a_folder_of_any_name_is_found_by_its_url(tmp_path: Path, name: str) -> None:
    """What one process writes by a path, another reads by the URL."""
    store = open_store(str(tmp_path / name))
    store.put("a/b", [b"x"])
    assert (tmp_path / name / "a/b").read_bytes() == b"x"
    assert open_store(store.url).get("a/b") == b"x"


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=60).filter(lambda name: b"\0" not in name))
@example(b"a/../b")
@example(b"~")
def test_the_url_of_a_folder_leads_back_to_it(name: bytes) -> None:
    """For all bytes that a path may have."""
    store = FolderStore("/base/" + os.fsdecode(name))
    again = open_store(store.url)
    assert isinstance(again, FolderStore)
    assert (again.root, again.url) == (store.root, store.url)


@settings(deadline=None)
@given(st.text(max_size=60))
@example("a#b")
@example("a?connections=8")
@example("a//b")
@example("\u3000")
def test_the_url_of_a_prefix_leads_back_to_it_or_is_refused(prefix: str) -> None:
    """No part of it is left out silently."""
    try:
        store = open_store(f"s3://bucket/{prefix}")
    except UsageError:
        return
    again = open_store(store.url)
    assert again.url == store.url
    assert store.url.partition("?")[0] == f"s3://bucket/{prefix.partition('?')[0]}".rstrip("/")


@pytest.mark.parametrize("url", ["file:x", "file://host/x", "file:///x?y", "file:///x#y", "file:///a%00b", "", "a\0b"])
def test_what_is_no_folder_is_refused_by_its_name(url: str) -> None:
    """The error holds what was given."""
    with pytest.raises(UsageError) as refused:
        open_store(url)
    assert url in str(refused.value) or repr(url) in str(refused.value)


@pytest.mark.parametrize("url", ["ftp://x/y", "S3://b/p", "s3:/b", "s3://", "s3://a b/c", "~nobody-of-this-name/x"])
def test_other_kinds_of_store_are_refused(url: str) -> None:
    """So is a home folder that nobody has."""
    with pytest.raises(UsageError):
        open_store(url)
