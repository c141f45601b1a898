"""An API that stores nothing: what uvicorn and FastAPI alone take for a request.

It reads the same shape, asks nobody for a token and answers in the same shape; the difference
between it and our API is ours. Prints `ready: URL` as our API does.
"""

from __future__ import annotations

import asyncio
import sys
from uuid import uuid4

from fastapi import FastAPI

from async_jobs.api.app import serve
from async_jobs.cli.api import listening_on
from async_jobs.schemas import (
    EnqueueManyRequest,
    EnqueueManyResponse,
    EnqueueRequest,
    EnqueueResponse,
)

app = FastAPI()


@app.post("/jobs/enqueue", status_code=201)
async def enqueue(job: EnqueueRequest) -> EnqueueResponse:
    return EnqueueResponse(job_id=uuid4())


@app.post("/jobs/enqueue-many", status_code=201)
async def enqueue_many(batch: EnqueueManyRequest) -> EnqueueManyResponse:
    return EnqueueManyResponse(jobs=[EnqueueResponse(job_id=uuid4()) for _ in batch.jobs])


def main() -> None:
    with listening_on("127.0.0.1", 0) as listener:
        print(f"ready: http://127.0.0.1:{listener.getsockname()[1]}", file=sys.stderr, flush=True)
        asyncio.run(serve(app, listener, log_level="WARNING"))


if __name__ == "__main__":
    main()
