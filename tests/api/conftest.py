"""A centre for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.api.centre import Centre, fresh_centre, migrated


@pytest.fixture(scope="session")
def template(postgres_url: str) -> Iterator[str]:
    """Name of a migrated database that tests copy."""
    yield from migrated(postgres_url)


@pytest.fixture
def centre(postgres_url: str, template: str, tmp_path: Path) -> Iterator[Centre]:
    """A centre with an operator, two rated devices, one package on sale and no customers."""
    yield from fresh_centre(postgres_url, template, tmp_path)
