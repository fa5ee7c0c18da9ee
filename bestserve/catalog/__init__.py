"""Records of GPUs and models with provenance: bundled, from plug-ins, or the user's own files."""

from bestserve.catalog.hardware import (
    Resolution,
    list_hardware,
    load_hardware,
    resolve_hardware,
)
from bestserve.catalog.listing import Row, catalog_rows, describe
from bestserve.catalog.models import list_models, load_model, model_from_config

__all__ = [
    "Resolution",
    "Row",
    "catalog_rows",
    "describe",
    "list_hardware",
    "list_models",
    "load_hardware",
    "load_model",
    "model_from_config",
    "resolve_hardware",
]
