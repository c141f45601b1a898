"""An application's own web service, with the jobs API beside its own endpoint.

Run it with `uvicorn --factory examples.app:create_app`. `POST /orders` shows
what the library is for: the order and its confirmation mail are written in one
transaction, so there is never an order without a mail to come, nor a mail
without an order.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from psycopg_pool import AsyncConnectionPool
from pydantic import BaseModel, Field

from async_jobs import AsyncJobsConfig, JobService, JobStore, create_jobs_router, create_pool
from async_jobs.errors import JobRejected


class NewOrder(BaseModel):
    """What a customer sends."""

    tenant_id: str = Field(examples=["bakery"])
    customer: str = Field(examples=["Ada"])
    email: str = Field(examples=["ada@mail.example"])
    item: str = Field(min_length=1, examples=["rye bread"])


class PlacedOrder(BaseModel):
    """What the customer gets back."""

    order_id: int
    job_id: str


class Orders:
    """The application's own table, and the jobs that follow from its rows."""

    def __init__(self, pool: AsyncConnectionPool, service: JobService) -> None:
        self._pool = pool
        self._service = service

    async def create_table(self) -> None:
        """Safe from several processes at once, which IF NOT EXISTS alone is not."""
        async with self._pool.connection() as conn, conn.transaction():
            await conn.execute("SELECT pg_advisory_xact_lock(hashtext('orders'))")
            await conn.execute(
                "CREATE TABLE IF NOT EXISTS orders ("
                "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
                "tenant_id text NOT NULL, customer text NOT NULL, item text NOT NULL)"
            )

    async def place(self, new: NewOrder) -> PlacedOrder:
        """Store the order and enqueue its mail: both, or on any error neither."""
        async with self._pool.connection() as conn, conn.transaction():
            cursor = await conn.execute(
                "INSERT INTO orders (tenant_id, customer, item) VALUES (%s, %s, %s) RETURNING id",
                [new.tenant_id, new.customer, new.item],
            )
            row = await cursor.fetchone()
            if row is None:
                raise RuntimeError("INSERT ... RETURNING gave no row")
            order_id = int(row[0])
            enqueued = await self._service.enqueue(
                tenant_id=new.tenant_id,
                use_case="notifications",
                type="send_notification",
                payload={
                    "recipient": new.email,
                    "template": "order",
                    "values": {"name": new.customer, "order": str(order_id)},
                },
                dedupe_key=f"order:{order_id}",
                connection=conn,
            )
        return PlacedOrder(order_id=order_id, job_id=str(enqueued.job_id))


def create_app(config: AsyncJobsConfig | None = None) -> FastAPI:
    """The web service; reads the environment unless given *config*.

    The pool is made here but opened in the lifespan, where an event loop runs.
    """
    config = config or AsyncJobsConfig.from_env()
    pool = create_pool(config, application_name="example-app")
    store = JobStore(pool)
    service = JobService(config, store)
    orders = Orders(pool, service)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with pool:
            await store.init_schema()
            await orders.create_table()
            yield

    app = FastAPI(title="Example shop", lifespan=lifespan)
    app.include_router(
        create_jobs_router(
            job_service_factory=lambda: service,
            require_auth_token=True,
            expected_auth_token=config.enqueue_auth_token,
        )
    )

    @app.post("/orders", status_code=201)
    async def place_order(new: NewOrder) -> PlacedOrder:
        return await orders.place(new)

    @app.exception_handler(JobRejected)
    async def say_why(request: Request, rejected: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(rejected)}, status_code=422)

    return app
