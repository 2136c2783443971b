"""What the Auth API says about itself, and its answers about what it does not offer."""

# ruff: noqa: ARG001 - all handlers are called alike

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import narwhal
from narwhal.local.auth.context import Auth
from narwhal.local.auth.errors import AuthError, invalid
from narwhal.local.auth.redirects import with_fragment
from narwhal.local.auth.requests import require_caller

PROVIDERS = (
    "apple", "azure", "bitbucket", "discord", "facebook", "figma", "fly", "github", "gitlab",
    "google", "kakao", "keycloak", "linkedin", "linkedin_oidc", "notion", "slack", "slack_oidc",
    "snapchat", "spotify", "twitch", "twitter", "workos", "zoom",
)  # fmt: skip


async def health(auth: Auth, request: Request) -> Response:
    """GET /health."""
    body = {
        "version": f"narwhal-{getattr(narwhal, '__version__', 'local')}",
        "name": "GoTrue",  # what clients of the health route look for
        "description": "GoTrue is a user registration and authentication API",
    }
    return JSONResponse(body)


async def settings(auth: Auth, request: Request) -> Response:
    """GET /settings: which ways in are open."""
    external = dict.fromkeys(PROVIDERS, False) | {
        "email": True,
        "phone": False,
        "anonymous_users": auth.options.anonymous_users,
    }
    body = {
        "external": external,
        "disable_signup": auth.options.disable_signup,
        "mailer_autoconfirm": auth.config.autoconfirm,
        "phone_autoconfirm": False,
        "sms_provider": "",
        "saml_enabled": False,
        "passkeys_enabled": False,
    }
    return JSONResponse(body)


async def jwks(auth: Auth, request: Request) -> Response:
    """GET /.well-known/jwks.json: tokens are signed with a shared secret, so no key is public."""
    return JSONResponse({"keys": []}, headers={"Cache-Control": "public, max-age=600"})


async def authorize(auth: Auth, request: Request) -> Response:
    """GET /authorize: no provider is configured."""
    provider = request.query_params.get("provider", "")
    if provider in PROVIDERS:
        raise invalid("Unsupported provider: provider is not enabled")
    raise invalid(f"Unsupported provider: Provider {provider} could not be found")


async def callback(auth: Auth, request: Request) -> Response:
    """GET and POST /callback: no flow can have been started, so none can come back."""
    error = {
        "error": "invalid_request",
        "error_code": "bad_oauth_callback",
        "error_description": "OAuth state parameter is missing or unknown",
    }
    url = with_fragment(auth.config.site_url, {**error, "sb": ""}, query=error)
    return Response(status_code=303, headers={"Location": url})


async def identities(auth: Auth, request: Request) -> Response:
    """GET /user/identities/authorize, DELETE /user/identities/{id}: linking is not offered."""
    await require_caller(auth, request)
    raise AuthError(404, "manual_linking_disabled", "Manual linking is disabled")


async def sso(auth: Auth, request: Request) -> Response:
    """POST /sso: SAML is not offered."""
    raise AuthError(404, "saml_provider_disabled", "SAML 2.0 is disabled")


async def factors(auth: Auth, request: Request) -> Response:
    """POST /factors: second factors are not offered."""
    await require_caller(auth, request)
    raise AuthError(422, "mfa_totp_enroll_not_enabled", "MFA enroll is disabled for TOTP")
