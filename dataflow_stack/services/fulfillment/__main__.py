"""Run fulfillment-service: ``python -m dataflow_stack.services.fulfillment``."""

from __future__ import annotations

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from dataflow_stack.store_client import build_client

from ..plumbing import Loop, build_app, configure_logging, serve
from .api import build_router
from .carrier import Carrier
from .config import FulfillmentSettings
from .feed import Feed, FeedPace
from .labels import LabelMaker
from .shipments import Shipments
from .signals import Signals
from .worker import Worker

__all__ = ["build", "main"]


def build(settings: FulfillmentSettings) -> FastAPI:
    """Put the service together."""
    clock, registry = settings.clock, CollectorRegistry()
    signals = Signals(registry)
    shipments = Shipments(settings.database, clock)
    client = build_client(
        settings.minio_endpoint,
        settings.minio_user,
        settings.minio_password.get_secret_value(),
        settings.minio_region,
    )
    carrier = Carrier(settings, signals)
    settings.worker_lock_file.parent.mkdir(parents=True, exist_ok=True)
    worker = Worker(
        settings, clock=clock, client=client, shipments=shipments, carrier=carrier, signals=signals
    )
    labels = LabelMaker(
        settings, clock=clock, client=client, shipments=shipments, carrier=carrier, signals=signals
    )
    pace = FeedPace(interval_s=settings.feed_interval_s, late_share=settings.feed_late_share)
    feed = Feed(pace, clock=clock, shipments=shipments, signals=signals)
    worker_loop = Loop("worker", worker.run)
    loops = [Loop("feed", feed.run), Loop("labels", labels.run), worker_loop]
    app = build_app("fulfillment-service", clock=clock, registry=registry, loops=loops)
    app.include_router(
        build_router(
            settings,
            clock=clock,
            shipments=shipments,
            worker=worker,
            feed=feed,
            signals=signals,
            worker_loop=worker_loop,
        )
    )
    return app


def main() -> None:
    """Serve it."""
    settings = FulfillmentSettings()
    configure_logging(settings.clock)
    serve(build(settings), settings)


if __name__ == "__main__":
    main()
