"""Helper for weir plugins in Python: any exception becomes a failure, http and configuration by keyword."""

# Python loads these when they are first needed, and a plugin has no files to load them from: they must be built in.
import _strptime  # noqa: F401
import encodings.idna  # noqa: F401
import functools
import json as _json
import traceback

from componentize_py_types import Err
from wit_world.imports import host, http
from wit_world.imports.host import Level
from wit_world.imports.types import Failure, FailureKind


def failure(message, kind=None, retry_after_ms=None):
    """An exception to raise. The kind says what weir shall do about it; without one it tries again later."""
    return Err(Failure(str(message), kind, retry_after_ms))


def transient(message, retry_after_ms=None):
    """Try again later."""
    return failure(message, FailureKind.TRANSIENT, retry_after_ms)


def permanent(message):
    """This input can never succeed: do not try again."""
    return failure(message, FailureKind.PERMANENT)


def misconfigured(message):
    """Stop calling until the operator has changed the configuration or a credential."""
    return failure(message, FailureKind.MISCONFIGURED)


def plugin(cls):
    """Put it on each exported class: whatever its methods raise becomes a failure, with the traceback in the log."""
    for name, method in list(vars(cls).items()):
        if callable(method) and not name.startswith("_"):
            setattr(cls, name, _guarded(method))
    return cls


def _guarded(method):
    @functools.wraps(method)
    def call(*args):
        try:
            return method(*args)
        except Err:
            raise
        except ModuleNotFoundError as error:
            # What is imported while it is built is built in; later there are no files to load it from.
            raise failure(f"{error}: imports must stand at the top of the module") from None
        except Exception as error:
            host.log(Level.WARN, traceback.format_exc(limit=-3))
            raise failure(f"{type(error).__name__}: {error}") from None

    return call


def log(message, level=Level.INFO):
    """A line in weir's log."""
    host.log(level, str(message))


def fetch(method, url, *, json=None, body=None, headers=(), credential=None, timeout_ms=None):
    """One request. An answer of 300 or more is raised as the failure that fits; catch `Err` to look at it yourself."""
    headers = list(headers)
    if json is not None:
        body = _json.dumps(json).encode()
        headers.append(("content-type", "application/json"))
    return http.fetch(http.Request(method, url, headers, body, credential, timeout_ms))


def answer_json(response):
    """The JSON in an answer; a web page of a proxy is a passing failure."""
    try:
        return _json.loads(response.body)
    except ValueError:
        raise transient(f"the answer is no JSON: {bytes(response.body[:80])!r}") from None


def read_config(context, required, optional=None):
    """`config` as a dict. Both arguments map keys to types; a wrong, missing or unknown key is named in the failure."""
    types = {**required, **(optional or {})}
    config = _json.loads(context.config)
    for key, value in config.items():
        if key not in types:
            raise misconfigured(f"config.{key}: unknown, expected one of {', '.join(types)}")
        wanted = types[key]
        # To Python a boolean is an integer; to an operator it is not.
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            name = getattr(wanted, "__name__", str(wanted))
            raise misconfigured(f"config.{key}: expected {name}, found {type(value).__name__}")
    for key in required:
        if key not in config:
            raise misconfigured(f"config.{key}: missing")
    return config
