"""DTS, a distributed task scheduler. A schedule is a pure function of time; a scheduler's progress is one point."""

__version__ = "0.1.0"
