"""Tells weir how far every prompt of this ComfyUI server is, whoever posted it.

ComfyUI sends the progress of a prompt only to the client that posted it. This node (it adds none to the menu) listens
where all of that passes, `PromptServer.send_sync`, and posts it to weir at most four times a second, from a thread of
its own. Nothing here may slow a sampler or fail a prompt: what weir does not take in time is dropped and counted.

It is put in place by `weir companion install`, which writes `companion.json` beside it.
"""

import collections
import http.client
import json
import logging
import os
import ssl
import threading
import time
import urllib.parse

# ComfyUI asks every file in custom_nodes for it.
NODE_CLASS_MAPPINGS = {}

VERSION = "1"
# Seconds between two posts.
INTERVAL = 0.25
# Seconds for weir to answer.
TIMEOUT = 3.0
# Seconds to leave weir alone after it did not answer, doubling.
BACKOFF = 1.0
BACKOFF_MAX = 60.0
# Frames that may wait; the oldest are dropped.
WAITING_MAX = 512
# Frames and bytes of one post.
POST_FRAMES_MAX = 64
POST_BYTES_MAX = 256 * 1024

# What is told of each kind of frame: never outputs, tracebacks, inputs or pictures.
FIELDS = {
    "execution_start": ("prompt_id", "timestamp"),
    "execution_cached": ("prompt_id", "nodes"),
    "executing": ("prompt_id", "node"),
    "executed": ("prompt_id", "node"),
    "progress": ("prompt_id", "node", "value", "max"),
    "progress_state": ("prompt_id", "nodes"),
    "execution_success": ("prompt_id",),
    "execution_error": ("prompt_id", "exception_type"),
    "execution_interrupted": ("prompt_id",),
}
NODE_FIELDS = ("value", "max", "state", "real_node_id")

log = logging.getLogger("weir_companion")


class Mailbox:
    """Frames on their way to the thread, oldest first. Of progress, only the newest per prompt and node is kept."""

    def __init__(self, waiting_max=WAITING_MAX):
        self._waiting_max = waiting_max
        self._lock = threading.Lock()
        self._frames = collections.OrderedDict()
        self._count = 0
        self._dropped = 0
        self.filled = threading.Event()

    def put(self, kind, data):
        """Called by the sampler's thread: a few dictionary operations, and never a wait for anything outside."""
        fields = FIELDS.get(kind)
        if fields is None:
            return
        prompt = data.get("prompt_id")
        if prompt is None:
            return
        frame = (kind, {name: data.get(name) for name in fields})
        with self._lock:
            if kind == "progress_state":
                key = (kind, prompt)
            elif kind == "progress":
                key = (kind, prompt, data.get("node"))
            else:
                self._count += 1
                key = self._count
            self._frames.pop(key, None)
            self._frames[key] = frame
            self._trim()
        self.filled.set()

    def take(self):
        """All that waits, with its keys, and how many were dropped since the last time."""
        with self._lock:
            frames, self._frames = self._frames, collections.OrderedDict()
            dropped, self._dropped = self._dropped, 0
            self.filled.clear()
        return frames, dropped

    def give_back(self, frames, dropped):
        """What could not be posted, before what came meanwhile; newer progress takes the place of older."""
        with self._lock:
            for key, frame in self._frames.items():
                frames.pop(key, None)
                frames[key] = frame
            self._frames = frames
            self._dropped += dropped
            self._trim()
        self.filled.set()

    def lost(self, count):
        with self._lock:
            self._dropped += count

    def __len__(self):
        with self._lock:
            return len(self._frames)

    def _trim(self):
        while len(self._frames) > self._waiting_max:
            self._frames.popitem(last=False)
            self._dropped += 1


class Refused(Exception):
    """weir answered, and not with 202. `again` = seconds until it may be asked again, None = these frames never."""

    def __init__(self, message, again):
        super().__init__(message)
        self.again = again


class Post:
    """The way to weir: one kept connection, no proxy, no redirect."""

    def __init__(self, url, token_file, timeout=TIMEOUT):
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("url: expected http(s)://host[:port]/api/sources/NAME/progress")
        self._is_tls = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port
        self._path = parts.path or "/"
        self._token_file = token_file
        self._timeout = timeout
        self._connection = None

    def _connect(self):
        if self._is_tls:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout, context=context
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)

    def _token(self):
        with open(self._token_file, encoding="utf-8") as file:
            token = file.read().strip()
        # A line break in a header would be another header.
        if not token or not token.isascii() or not token.isprintable():
            raise ValueError("the token file holds no token")
        return token

    def send(self, body):
        headers = {
            "authorization": "Bearer " + self._token(),
            "content-type": "application/json",
            "user-agent": "weir-companion/" + VERSION,
        }
        try:
            answer = self._answer(body, headers)
            # An answer of weir's is short; another server's is not read for ever.
            answer.read(64 * 1024)
            if answer.will_close or not answer.isclosed():
                self.close()
        except Exception:
            self.close()
            raise
        status = answer.status
        if status == 202:
            return
        if status in (400, 413, 422):
            raise Refused("weir refuses a report: %d" % status, None)
        if status in (401, 403):
            raise Refused("weir refuses the token (%d)" % status, BACKOFF_MAX)
        raise Refused("weir answered %d" % status, _retry_after(answer))

    def _answer(self, body, headers):
        if self._connection is not None:
            try:
                return self._ask(body, headers)
            except (ConnectionError, http.client.RemoteDisconnected):
                # weir closes a connection that was idle for a while. A report that comes twice does no harm.
                self.close()
        self._connection = self._connect()
        return self._ask(body, headers)

    def _ask(self, body, headers):
        self._connection.request("POST", self._path, body=body, headers=headers)
        return self._connection.getresponse()

    def close(self):
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _retry_after(answer):
    try:
        return min(max(float(answer.getheader("retry-after", BACKOFF)), BACKOFF), BACKOFF_MAX)
    except ValueError:
        return BACKOFF


def shape(kind, data):
    """One frame as weir reads it: plain JSON values, and of a node only how far it is."""
    if kind == "progress_state":
        nodes = data.get("nodes")
        nodes = nodes if isinstance(nodes, dict) else {}
        data = dict(data)
        data["nodes"] = {
            str(name): {field: _plain(node.get(field)) for field in NODE_FIELDS}
            for name, node in list(nodes.items())
            if isinstance(node, dict)
        }
    elif kind == "execution_cached":
        data = dict(data)
        data["nodes"] = [str(node) for node in data.get("nodes") or ()]
    else:
        data = {name: _plain(value) for name, value in data.items()}
    return {"type": kind, "data": data}


def _plain(value):
    value = getattr(value, "value", value)
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return str(value)[:500]


def bodies(frames):
    """Cuts frames into posts. Yields (keys, body); a frame that is too large for any has the body None."""
    keys, parts, size = [], [], 0
    for key, (kind, data) in list(frames.items()):
        part = json.dumps(shape(kind, data), allow_nan=False)
        if len(part) > POST_BYTES_MAX - 100:
            yield [key], None
            continue
        if parts and (len(parts) >= POST_FRAMES_MAX or size + len(part) > POST_BYTES_MAX - 100):
            yield keys, parts
            keys, parts, size = [], [], 0
        keys.append(key)
        parts.append(part)
        size += len(part) + 1
    if parts:
        yield keys, parts


class Companion:
    """The thread that posts. It ends with the process."""

    def __init__(self, post, mailbox=None, interval=INTERVAL, clock=time.monotonic):
        self.mailbox = mailbox or Mailbox()
        self._post = post
        self._interval = interval
        self._clock = clock
        self._wait = BACKOFF
        self._trouble = None
        self._stopping = threading.Event()
        self._thread = None

    def start(self):
        self._thread = threading.Thread(target=self.run, name="weir-companion", daemon=True)
        self._thread.start()

    def stop(self):
        self._stopping.set()
        self.mailbox.filled.set()
        if self._thread is not None:
            self._thread.join()
        self._post.close()

    def run(self):
        while not self._stopping.is_set():
            self.mailbox.filled.wait()
            if self._stopping.is_set():
                return
            try:
                wait = self.step()
            except Exception as error:  # Whatever it is, it is not the sampler's business.
                wait = self._failed("%s: %s" % (type(error).__name__, error))
            self._stopping.wait(wait)

    def step(self):
        """Posts what waits. Returns the seconds until the next time."""
        frames, dropped = self.mailbox.take()
        try:
            for keys, parts in bodies(frames):
                if parts is not None:
                    self._send(parts, dropped)
                    dropped = 0
                else:
                    dropped += 1
                for key in keys:
                    frames.pop(key, None)
        except Refused as refused:
            if refused.again is None:
                # They would be refused again: thrown away.
                self.mailbox.lost(len(frames) + dropped)
                self._say(str(refused))
                return self._interval
            self.mailbox.give_back(frames, dropped)
            self._say(str(refused))
            return refused.again
        except Exception as error:
            self.mailbox.give_back(frames, dropped)
            return self._failed("weir cannot be reached: %s" % type(error).__name__)
        if dropped:
            self.mailbox.lost(dropped)
        self._wait = BACKOFF
        if self._trouble is not None:
            self._trouble = None
            log.info("weir takes reports again")
        return self._interval

    def _send(self, parts, dropped):
        head = '{"version":%s,"dropped":%d,"frames":[' % (VERSION, dropped)
        self._post.send((head + ",".join(parts) + "]}").encode("utf-8"))

    def _failed(self, message):
        self._say(message)
        wait = self._wait
        self._wait = min(self._wait * 2, BACKOFF_MAX)
        return wait

    def _say(self, message):
        """Each trouble once, until another one or none."""
        if message != self._trouble:
            self._trouble = message
            log.warning("%s; prompts are not affected", message)


def listen(server, mailbox):
    """Looks at everything the server sends, on its way; what is sent, and to whom, stays as it is."""
    send_sync = server.send_sync
    if getattr(send_sync, "is_weir_companion", False):
        return False

    def listening(event, data, *args, **kwargs):
        try:
            # Previews have numbers for events.
            if type(event) is str and type(data) is dict:
                mailbox.put(event, data)
        except Exception:
            pass
        return send_sync(event, data, *args, **kwargs)

    listening.is_weir_companion = True
    server.send_sync = listening
    return True


def settings(folder, environment=None):
    """Address and token file: the environment's, else those of `companion.json`. None = nothing to do."""
    environment = os.environ if environment is None else environment
    told = {}
    path = os.path.join(folder, "companion.json")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            told = json.load(file)
    url = environment.get("WEIR_COMPANION_URL") or told.get("url")
    token_file = environment.get("WEIR_COMPANION_TOKEN_FILE") or told.get("token_file")
    if not url or not token_file:
        return None
    return url, os.path.expanduser(token_file)


def install(server, folder):
    """Begins to report. A companion that cannot leaves ComfyUI as it is and says why."""
    try:
        told = settings(folder)
        if told is None:
            log.warning("no address of weir: run `weir companion install`")
            return None
        companion = Companion(Post(*told))
        if not listen(server, companion.mailbox):
            return None
        companion.start()
        log.info("reporting to weir")
        return companion
    except Exception as error:
        log.warning("not reporting to weir: %s: %s", type(error).__name__, error)
        return None


def _comfyui():
    """The running server, where this file is loaded by one."""
    try:
        from server import PromptServer
    except ImportError:
        return None
    return getattr(PromptServer, "instance", None)


_server = _comfyui()
if _server is not None:
    install(_server, os.path.dirname(os.path.abspath(__file__)))
