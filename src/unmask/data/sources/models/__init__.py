"""Published masked models whose weights come inside packages: opened, checked, laid out as folders that loaders read."""

from unmask.data.sources.models.catalogue import MODELS, Published, fetch_model, is_there

__all__ = ["MODELS", "Published", "fetch_model", "is_there"]
