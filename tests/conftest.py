"""What every room of the tests shares."""

from hypothesis import settings

# A busy machine is slow now and then; how long an example takes is no finding. CI draws the same examples every time.
settings.register_profile("dts", deadline=None)
settings.register_profile("dts-ci", settings.get_profile("ci"), deadline=None)
settings.load_profile("dts-ci" if settings.get_current_profile_name() == "ci" else "dts")
