"""Helpers for application servers and frameworks. None is required."""
