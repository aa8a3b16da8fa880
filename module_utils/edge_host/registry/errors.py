"""Errors of the fleet's image registry."""

from __future__ import annotations


class RegistryError(Exception):
    """Why an image is not in the registry, or the registry is not reachable; a sentence."""
