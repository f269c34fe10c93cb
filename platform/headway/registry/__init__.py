"""The model registry: versions that are published once, verified before they are loaded, and known by aliases."""

from headway.registry.manifest import Code, Manifest, Origin
from headway.registry.model import Model, find, names
from headway.registry.version import Version

__all__ = ["Code", "Manifest", "Model", "Origin", "Version", "find", "names"]
