"""The manager and the client of a kernel that runs several notebooks, one after the other."""

from __future__ import annotations

from typing import Any

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager


class SharedKernelClient(AsyncKernelClient):
    """Stays connected from one notebook to the next.

    A heartbeat takes a second to stop, so there is none: whether the kernel lives is read from its
    process. Waiting once more for a ready kernel would take a third of a second.
    """

    _is_ready = False

    def start_channels(self, *_: Any, **__: Any) -> None:
        """Connect, unless connected already."""
        if not self.channels_running:
            super().start_channels(hb=False)

    async def wait_for_ready(self, timeout: float | None = None) -> None:
        """Wait for the kernel, unless it was ready before."""
        if not self._is_ready:
            await super().wait_for_ready(timeout)
            self._is_ready = True


class SharedKernelManager(AsyncKernelManager):
    """Gives every notebook the same client."""

    _client: AsyncKernelClient | None = None

    def client(self, **options: Any) -> AsyncKernelClient:  # type: ignore[override]
        """Return the client; the first call makes it."""
        if self._client is None:
            self.client_factory = SharedKernelClient
            self._client = super().client(**options)
        return self._client

    def disconnect(self) -> None:
        """Close the client's channels."""
        if self._client is not None:
            self._client.stop_channels()
            self._client = None
