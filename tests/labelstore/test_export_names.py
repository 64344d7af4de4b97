from __future__ import annotations

import os

import pytest

from ripu.labelstore import export_name


@pytest.mark.parametrize("image_id", ["../../x", "/etc/passwd", "nul\0", "a" * 9999, "..", ".", "\udcff\n", "a\\b", ""])
def test_export_names_are_plain_file_names(image_id: str) -> None:
    name = export_name(7, image_id)
    assert name.startswith("000007_")
    assert len(name) <= 140
    assert os.path.basename(name) == name
    assert name.isascii()
    assert name.isprintable()
