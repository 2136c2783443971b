"""The AI service on Modal, behind the edge function `ai`, which alone holds the proxy token."""

from typing import Any

import modal

from modal_app.resources import MINUTES, MODELS, app, image, models, project


@app.function(
    image=image,
    cpu=1.0,
    memory=2048,
    volumes={MODELS: models},
    secrets=[project],
    timeout=1 * MINUTES,
    scaledown_window=5 * MINUTES,
    max_containers=8,
)
@modal.concurrent(max_inputs=32)
@modal.asgi_app(requires_proxy_auth=True)
def ai() -> Any:
    """Serve /search, /embed and /health."""
    from narwhal.service import create_service
    from narwhal.settings import load_settings

    settings = load_settings()
    return create_service(settings.require("supabase_url"), settings.require("anon_key"))
