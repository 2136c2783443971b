"""Ingestion on Modal: the worker of `narwhal worker --drain`, every minute and on demand."""

import modal

from modal_app.resources import MINUTES, MODELS, app, image, models, project, worker_rights


@app.function(
    image=image,
    cpu=2.0,
    memory=4096,
    volumes={MODELS: models},
    secrets=[project, worker_rights],
    schedule=modal.Period(minutes=1),
    timeout=60 * MINUTES,  # a lost container costs a lease: another one finishes its job
    max_containers=4,
)
def drain(concurrency: int = 2) -> int:
    """Process jobs until none is left; return how many.

    Any number may run at once. To wake one early:
    modal.Function.from_name("narwhal", "drain").spawn()
    """
    from narwhal.ingest.worker import run_worker
    from narwhal.settings import load_settings

    return run_worker(load_settings(), drain=True, concurrency=concurrency)
