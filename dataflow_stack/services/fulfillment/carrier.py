"""Asks the carrier for tracking numbers, with a time-out, and counts how it went."""

from __future__ import annotations

import logging
import time

import requests

from ...web import ask
from .config import FulfillmentSettings
from .shipments import Order
from .signals import Signals

__all__ = ["Carrier", "CarrierError"]

log = logging.getLogger("fulfillment.carrier")


class CarrierError(Exception):
    """The carrier gave no tracking number; ``reason`` is a label of the failure counter."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


class Carrier:
    """The carrier's API as this service sees it."""

    def __init__(self, settings: FulfillmentSettings, signals: Signals) -> None:
        self._url = f"{settings.carrier_url}/carrier/labels"
        self._timeout_s, self._signals = settings.carrier_timeout_s, signals

    def request_tracking_number(self, order: Order) -> str:
        """Ask for the order's number.

        Raises
        ------
        CarrierError
            When there was no answer in time, or a bad one; counted and logged.
        """
        body = {
            "orderId": order.order_id,
            "carrier": order.carrier,
            "serviceLevel": order.service_level,
        }
        started = time.monotonic()
        outcome, failure = "error", CarrierError("carrier_error", "no tracking number")
        try:
            answer = ask("POST", self._url, json=body, timeout_s=self._timeout_s)
            answer.raise_for_status()
            number = answer.json()["trackingNumber"]
            outcome = "ok"
            return str(number)
        except requests.Timeout:
            outcome = "timeout"
            text = f"no answer within {self._timeout_s:g} s"
            failure = CarrierError("carrier_timeout", text)
        except (requests.RequestException, KeyError, TypeError, ValueError) as error:
            failure = CarrierError("carrier_error", str(error))
        finally:
            elapsed_s = time.monotonic() - started
            self._signals.carrier_seconds.labels(outcome).observe(elapsed_s)
        self._signals.failed.labels("carrier", failure.reason).inc()
        log.error("carrier request failed: %s", failure, extra={"order_id": order.order_id})
        raise failure
