"""Records of GPUs and models with provenance: bundled, from plug-ins, or the user's own files."""

from bestserve.catalog.engines import EngineRecord, engine_record, list_engines, load_engine
from bestserve.catalog.hardware import (
    Resolution,
    list_hardware,
    load_hardware,
    resolve_hardware,
)
from bestserve.catalog.listing import Row, catalog_rows, describe
from bestserve.catalog.models import find_model, list_models, load_model, model_from_config

__all__ = [
    "EngineRecord",
    "Resolution",
    "Row",
    "catalog_rows",
    "describe",
    "engine_record",
    "find_model",
    "list_engines",
    "list_hardware",
    "list_models",
    "load_engine",
    "load_hardware",
    "load_model",
    "model_from_config",
    "resolve_hardware",
]
