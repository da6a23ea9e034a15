"""One centre for the session, made as new for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog
from tests.api.centre import Centre


@pytest.fixture(scope="session")
def served(migrated_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Centre]:
    """A centre that answers on loopback for as long as the session lasts."""
    made = Centre(migrated_url, tmp_path_factory.mktemp("centre"))
    yield made
    made.close()


@pytest.fixture
def centre(served: Centre, clean_url: str) -> Iterator[Centre]:
    """A centre with an operator, two rated devices, one package on sale and no customers."""
    served.begin()
    yield served
    served.end()


@pytest.fixture(autouse=True)
def plain_logs() -> Iterator[None]:
    """Lines as a platform writes them; the library's own default draws boxes for seconds."""
    render = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(processors=render, cache_logger_on_first_use=False)
    yield
    structlog.reset_defaults()
