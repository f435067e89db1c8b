"""``unmask compress``, ``decompress`` and ``inspect``."""
