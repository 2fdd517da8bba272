"""What can be wrong with the simulated appliance, as `POST /simulator/fault` takes it.

`{"endpoint": "fileInfo", "path": "/omero/a.tif", "status": 502}` makes every question about this file a failure, until
`DELETE /simulator/fault`; with `"times": 3` only the next three. Left out, `endpoint` and `path` mean all.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

Endpoint = Literal["status", "fileInfo", "files", "search", "delete", "create-folder", "release", "restore"]


class Fault(BaseModel):
    """One fault: where and how often, then what. Several of what may be given together."""

    model_config = ConfigDict(extra="forbid")

    endpoint: Endpoint | None = None
    path: str | None = None  # as the appliance's own paths, with its slash
    times: int | None = None

    status: int | None = None  # this status instead of an answer, with an empty body or `body`
    body: str | None = None  # this text instead of the answer's, as it is, with `status` or 200
    set: dict[str, JsonValue] = {}  # these keys of each file in the answer have these values
    without: tuple[str, ...] = ()  # these keys are not there
    is_text: bool = False  # texts instead of types: `"true"`, `"10 bytes"`, `MD5checksum`, as older versions answer
    encoding: str | None = None  # of the body; the header goes on to say ISO-8859-1
    hang: float = 0  # seconds of the real clock before the answer
    drop: bool = False  # the connection is closed without an answer
    skew: float = 0  # seconds that the Date header is ahead
    silent: bool = False  # the file stays unknown, for ever
    recall: Literal["", "for ever", "completed only", "failed"] = ""  # what becomes of a restore-request made now

    def fits(self, endpoint: str, path: str) -> bool:
        """Whether this request is to suffer from it; counted if so."""
        if self.endpoint not in (None, endpoint) or self.path not in (None, path) or self.times == 0:
            return False
        if self.times is not None:
            self.times -= 1
        return True
