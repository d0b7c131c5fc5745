"""Services to talk to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.served import Served


@pytest.fixture(scope="module")
def refunds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The service of the example, as it is."""
    served = Served("examples.service:app", tmp_path_factory.mktemp("refunds"))
    yield served
    served.close()


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Served]:
    """The service of the example with a team that works until the test lets it go."""
    served = Served("tests.service.held:app", tmp_path)
    yield served
    served.close()
