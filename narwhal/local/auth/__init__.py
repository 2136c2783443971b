"""The Auth API of the local stack: what Supabase's official clients expect under /auth/v1."""

from narwhal.local.auth.app import create_auth
from narwhal.local.auth.options import AuthOptions

__all__ = ["AuthOptions", "create_auth"]
