"""What every room of the tests shares."""

import pytest
from hypothesis import settings

from tests import servers as shared

# A busy machine is slow now and then; how long an example takes is no finding. CI draws the same examples every time.
settings.register_profile("dts", deadline=None)
settings.register_profile("dts-ci", settings.get_profile("ci"), deadline=None)
settings.load_profile("dts-ci" if settings.get_current_profile_name() == "ci" else "dts")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Starts Kafka and Cassandra when a chosen test needs them (outside of any test's time-out)."""
    wanted = any("servers" in getattr(item, "fixturenames", ()) for item in session.items)
    if wanted and not session.config.option.collectonly:
        try:
            shared.servers()
        except RuntimeError as error:
            pytest.exit(str(error), returncode=1)


def pytest_sessionfinish() -> None:
    """Stops what was started."""
    shared.stop()


@pytest.fixture(scope="session")
def servers() -> shared.Servers:
    """The real Kafka and the real Cassandra."""
    return shared.servers()
