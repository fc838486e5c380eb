"""What moves: datasets, domains, services and topics, read from catalog/*.yaml into frozen models."""

from data_platform.catalog.load import Catalog, load_catalog
from data_platform.catalog.problems import CatalogError, Problem

__all__ = ["Catalog", "CatalogError", "Problem", "load_catalog"]
