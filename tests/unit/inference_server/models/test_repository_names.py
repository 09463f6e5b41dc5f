"""What a caller may ask the repository for."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference_server.errors import NotFound
from inference_server.models.repository import ModelRepository
from tests.support.models.small_models import sum_and_difference, write_model


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../outside", "inside/../../outside", "{}/outside", "_hidden", ".hidden", "a\x00b", "x" * 256, "é" * 200]
)
def test_no_name_leads_out_of_the_repository_or_breaks_it(tmp_path: Path, name: str) -> None:
    write_model(tmp_path, "outside", sum_and_difference())
    for hidden in ("_hidden", ".hidden", "inside"):
        write_model(tmp_path / "models", hidden, sum_and_difference())
    repository = ModelRepository(tmp_path / "models")
    assert repository.read("inside").name == "inside"
    with pytest.raises(NotFound, match=r"there is no model .*RepositoryIndex" if not name else "there is no model"):
        repository.read(name.format(tmp_path))
