"""The model registry: versions that are published once, verified before they are loaded, and known by aliases."""

from headway.registry.model import RegisteredModel, find, model_names
from headway.registry.version import Version
from headway.registry.version_manifest import Code, Origin, VersionManifest

__all__ = ["Code", "Origin", "RegisteredModel", "Version", "VersionManifest", "find", "model_names"]
