from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.models.small_models import write_small_repository


@pytest.fixture(scope="session")
def small_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of three small models and a broken one."""
    repository = tmp_path_factory.mktemp("models")
    write_small_repository(repository)
    return repository
