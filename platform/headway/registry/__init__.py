"""The model registry: immutable model versions, verified before they are loaded, and aliases that point at them."""

from headway.registry.model import RegisteredModel, find, model_names, strays_among_models
from headway.registry.version import Version
from headway.registry.version_manifest import Code, Origin, VersionManifest

__all__ = [
    "Code",
    "Origin",
    "RegisteredModel",
    "Version",
    "VersionManifest",
    "find",
    "model_names",
    "strays_among_models",
]
