"""What an operator can choose about sign-in beyond the gateway's own configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class AuthOptions:
    """Limits and switches; the defaults suit one machine. Names ending in `_s` are seconds.

    `redirect_allow_list` holds URLs with `*` (anything up to the next `.` or `/`), `**`
    (anything) and `?` (one character). `password_attempts` counts wrong passwords, and wrong
    one-time codes, per e-mail and address within `attempts_window_s`. `mail_dir` is where mail
    is kept instead of being sent; by default `mail` beside the storage folder.
    """

    redirect_allow_list: tuple[str, ...] = ()
    disable_signup: bool = False
    anonymous_users: bool = False
    min_password_length: int = 6
    password_attempts: int = 30
    attempts_window_s: float = 300.0
    mail_interval_s: float = 1.0
    otp_expiry_s: int = 3600
    flow_expiry_s: int = 300
    reuse_interval_s: int = 10
    mail_dir: Path | None = None
