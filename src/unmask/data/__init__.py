"""Data: reading and making discrete data, as int64 tokens."""
