"""Narwhal: a Supabase-native drive that understands what is in it."""

__version__ = "0.1.0"
