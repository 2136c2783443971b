"""The AI service: search, embeddings and health over HTTP, with no rights of its own."""

from narwhal.service.app import create_service

__all__ = ["create_service"]
