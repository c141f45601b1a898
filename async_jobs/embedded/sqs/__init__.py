"""A local server that speaks the SQS protocol, for development and tests.

Standard library only and all in memory. `SqsServer` runs it inside a process,
`python -m async_jobs.embedded.sqs` as a process of its own; `Faults` make it
misbehave on request. It stands in for the service at its wire, so that clients
under test run the code they run in production. Not for production.
"""

from async_jobs.embedded.sqs.faults import Fault, Faults, Kind
from async_jobs.embedded.sqs.queue import Counts
from async_jobs.embedded.sqs.refusal import Refused
from async_jobs.embedded.sqs.server import SqsServer

__all__ = ["Counts", "Fault", "Faults", "Kind", "Refused", "SqsServer"]
