"""A server as a policy: whoever runs policies can run this one."""

from typing import Unpack

from molmoact2.client.errors import RefusedError
from molmoact2.client.questions import AskOptions
from molmoact2.client.synchronous import Client
from molmoact2.types import ActionChunk, NoActionError, Observation


class RemotePolicy:
    """One robot's policy on a server; implements `molmoact2.types.Policy`."""

    def __init__(self, client: Client, **options: Unpack[AskOptions]) -> None:
        """`options` are those of every question; the embodiment may be left out where the server knows only one.

        Waits for the connection. Raises ValueError for an embodiment that the server does not know.
        """
        self.client = client
        self.card = client.robot(options.get("embodiment"))
        self.options = options

    def act(self, observation: Observation, /) -> ActionChunk:
        """Return the next actions; NoActionError while an operator holds the robot. Else it raises as the client does.

        Waits for the answer, within the client's time.
        """
        try:
            return self.client.act(observation, **self.options)
        except RefusedError as error:
            if error.code == "held":
                raise NoActionError(str(error)) from error
            raise

    def reset(self, seed: int | None = None) -> None:
        """Begin a new episode."""
        self.client.reset(seed)
