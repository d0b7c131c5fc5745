"""Services to talk to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.served import Served
from tests.warm import Warm


@pytest.fixture(scope="module")
def refunds(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> Iterator[Served]:
    """The service of the example, as it is."""
    served = Served("examples.service:app", tmp_path_factory.mktemp("refunds"), warm)
    yield served
    served.close()


@pytest.fixture
def held(tmp_path: Path, warm: Warm) -> Iterator[Served]:
    """The service of the example with a team that works until the test lets it go."""
    served = Served("tests.service.held:app", tmp_path, warm)
    yield served
    served.close()
