# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A module of the real Synapse: how it would try to reach a server that is not there, without the hours of waiting.

Synapse's own code decides; only the connection that is refused, and the sleep between two attempts, take no time.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.cae.matrix.tests.patience import PROMPT, patient
from synapse.api.errors import RequestSendFailed
from synapse.http.matrixfederationclient import MatrixFederationRequest
from synapse.http.server import DirectServeJsonResource
from synapse.module_api import ModuleApi
from twisted.internet import defer
from twisted.internet.error import ConnectionRefusedError as Refused

DEAD = "dead.example"


class Refusing:
    """In place of the agent that connects."""

    def request(self, *_: Any, **__: Any) -> defer.Deferred[None]:
        return defer.fail(Refused())


class Watch:
    """In place of the sleep between two attempts."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, name: str, delay_ms: float) -> None:
        self.slept.append(delay_ms / 1000)


class Retries:
    def __init__(self, config: Any, api: ModuleApi) -> None:
        homeserver = api._hs
        client, store = homeserver.get_federation_http_client(), homeserver.get_datastores().main
        client.agent = Refusing()

        async def series() -> tuple[list[float], float]:
            """One message that is tried: the pauses between the attempts, and how long Synapse then keeps away."""
            client._sleeper = watch = Watch()
            request = MatrixFederationRequest(
                method="PUT", destination=DEAD, path="/_matrix/federation/v1/send/1", json={"pdus": []}
            )
            try:
                await client._send_request(request, long_retries=True)
            except RequestSendFailed:
                timings = await noted()
                # That time goes by. Synapse lets nothing take the place of a later failure, but a success.
                await store.set_destination_retry_timings(DEAD, None, 0, 0)
                await store.set_destination_retry_timings(DEAD, timings.failure_ts, 1, timings.retry_interval)
                return watch.slept, timings.retry_interval / 1000
            raise AssertionError("it was sent")

        async def noted() -> Any:
            """What Synapse remembers of the failure; it writes that down in the background."""
            deadline = homeserver.get_clock().time() + patient(PROMPT)
            while homeserver.get_clock().time() < deadline:
                timings = await store.get_destination_retry_timings(DEAD)
                if timings is not None and timings.retry_last_ts > 1:
                    return timings
                await api.sleep(0.01)
            raise AssertionError("the failure was not noted")

        async def get(resource: Any, request: Any) -> tuple[int, dict[str, Any]]:
            await store.set_destination_retry_timings(DEAD, None, 0, 0)
            found = [await series() for _ in range(40)]
            return 200, {"pauses": [slept for slept, _ in found], "intervals": [interval for _, interval in found]}

        resource = type("RetriesResource", (DirectServeJsonResource,), {"_async_render_GET": get})
        api.register_web_resource("/_synapse/client/retries", resource(clock=homeserver.get_clock()))
