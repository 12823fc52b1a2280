from collections.abc import Iterator

import pytest

from molmoact2.envs.so101 import So101Env


@pytest.fixture(scope="session")
def so101() -> Iterator[So101Env]:
    environment = So101Env()
    yield environment
    environment.close()
