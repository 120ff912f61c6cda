"""Roots: a variable that can name no folder is one sentence that names it."""

import pytest

from adlib.common import paths
from adlib.common.errors import UserError


@pytest.mark.parametrize("name", ["DATA", "RESULTS", "CACHE", "WEIGHTS"])
@pytest.mark.parametrize("value", ["~nobody-at-all", " ", "a\nb", "x" * 300, "FILE", "FILE/x", "SELF"])
def test_a_root_that_can_be_no_folder_is_refused_by_name(name, value, tmp_path, monkeypatch):
    (tmp_path / "FILE").write_text("")
    (tmp_path / "SELF").symlink_to(tmp_path / "SELF")
    monkeypatch.setenv(f"ADLIB_{name}", str(tmp_path / value) if value.isupper() or "FILE" in value else value)
    with pytest.raises(UserError, match=f"^ADLIB_{name} is .*, which is no place for a folder: "):
        getattr(paths, f"{name.lower()}_root")()
