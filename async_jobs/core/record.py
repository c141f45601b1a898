"""What may be written on the row about an attempt: its error and its result.

A failure must always be recordable, so everything foreign is made safe first:
NUL and lone surrogates are replaced, lengths are capped, a result that is not
JSON is replaced by a note. Nothing here raises.
"""

from __future__ import annotations

import json
import re
import traceback
from typing import Any

MAX_MESSAGE = 1_000
MAX_TRACEBACK = 4_000
MAX_RESULT_BYTES = 64 * 1024

# An odd number of backslashes: an even one spells the escape without meaning it.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def safe_text(value: object, most: int) -> str:
    """*value* as text that PostgreSQL can hold, its middle cut out where it is too long."""
    try:
        text = str.__str__(str(value))  # a subclass may do as it likes
    except BaseException as error:
        text = f"<unprintable {type(value).__name__}: {type(error).__name__}>"
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    text = text.encode("utf-8", "replace").decode()
    if len(text) <= most:
        return text
    half = (most - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"


def error_record(error: BaseException, *, attempt: int) -> dict[str, Any]:
    """An exception as `jobs.last_error` keeps it."""
    try:
        trace = "".join(traceback.format_exception(error))
    except BaseException:
        trace = ""
    return {
        "type": safe_text(type(error).__qualname__, 200),
        "message": safe_text(error, MAX_MESSAGE),
        "traceback": safe_text(trace, MAX_TRACEBACK),
        "attempt": attempt,
    }


def plain_error(kind: str, message: str, *, attempt: int) -> dict[str, Any]:
    """An error that no exception stands for, as `jobs.last_error` keeps it."""
    return {"type": kind, "message": safe_text(message, MAX_MESSAGE), "attempt": attempt}


def result_json(value: object) -> str | None:
    """What a handler returned, as JSON text; a note in its place where that cannot be."""
    if value is None:
        return None
    try:
        if _is_large(value):
            return _note(f"the result has more than {MAX_RESULT_BYTES} bytes")
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        size = len(text.encode())
    except BaseException as error:
        return _note(f"the result is not JSON ({type(error).__name__})")
    if _NUL.search(text):
        return _note("the result holds a NUL character")
    if size > MAX_RESULT_BYTES:
        return _note(f"the result has {size} bytes, more than {MAX_RESULT_BYTES}")
    return text


def _is_large(value: object) -> bool:
    """Whether *value* has too many bytes as JSON, as far as can be seen without writing it.

    Writing a large one would hold the interpreter, and with it the heartbeat, all the while.
    """
    least, left = 0, [value]
    while left:
        each = left.pop()
        least += len(each) if isinstance(each, str | list | tuple | dict) else 1
        if least > MAX_RESULT_BYTES:
            return True
        if isinstance(each, dict):
            left.extend(each)
            left.extend(each.values())
        elif isinstance(each, list | tuple):
            left.extend(each)
    return False


def _note(reason: str) -> str:
    return json.dumps({"async_jobs_note": f"not stored: {reason}"})
