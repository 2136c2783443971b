"""What the gateway's services are told: one frozen object, made from a home's state."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class GatewayConfig:
    """Addresses, keys and limits that Auth, Storage and the gateway share.

    `max_file_size` is in bytes, `jwt_expiry` in seconds; the database URLs log in as
    `supabase_auth_admin` and `supabase_storage_admin`. `rest_url` may be a Unix socket,
    `unix:/path`. The `sb_…` keys are opaque stand-ins for the two JWT keys; empty when unused.
    """

    api_url: str
    site_url: str
    jwt_secret: str
    anon_key: str
    service_role_key: str
    rest_url: str
    storage_dir: Path
    auth_database_url: str
    storage_database_url: str
    jwt_expiry: int = 900
    autoconfirm: bool = True
    max_file_size: int = 5 * 1024**3
    publishable_key: str = ""
    secret_key: str = ""
