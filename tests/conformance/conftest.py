"""Every .pkt script below is a test."""

from umuxstack.conformance.pytest_plugin import pytest_collect_file

__all__ = ["pytest_collect_file"]
