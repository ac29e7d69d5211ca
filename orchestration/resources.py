"""Dagster resources: the open shop, and nothing that an asset could compute itself."""

from __future__ import annotations

import os

import dagster as dg

from contracts.retailer import Retailer
from contracts.settings import Settings, read_retailer, read_settings


class Shop(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The open shop and where its state lives.

    Attributes:
        environment: Variables that override the process's own (used by tests and by second shops).
    """

    environment: dict[str, str] = {}  # noqa: RUF012 - a pydantic field, copied per instance

    def settings(self) -> Settings:
        """Settings as of now."""
        return read_settings({**os.environ, **self.environment})

    def profile(self) -> Retailer:
        """The shop's profile as of now."""
        return read_retailer(self.settings())
