"""Narwhal on Modal: a thin shell around what `narwhal` does. Deploy: modal deploy -m modal_app."""

from modal_app import service, worker
from modal_app.resources import app

__all__ = ["app", "service", "worker"]
