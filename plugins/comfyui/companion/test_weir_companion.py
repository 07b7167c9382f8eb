"""Tests of the companion against a real HTTP server on this machine: `python3 -m unittest`."""

import http.server
import json
import logging
import os
import tempfile
import threading
import time
import unittest

import weir_companion as companion

TOKEN = "canary-token-0123456789"


class Weir:
    """weir's endpoint: keeps what is posted and answers as it is told to."""

    def __init__(self):
        weir = self
        self.posts = []
        self.status = 202
        self.delay = 0.0
        self.headers = {}
        self.hung_up = 0

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                time.sleep(weir.delay)
                weir.posts.append((time.monotonic(), dict(self.headers), json.loads(body)))
                self.send_response(weir.status)
                for name, value in weir.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *args):
                pass

            def finish(self):
                super().finish()
                weir.hung_up += 1

        self.handler = Handler
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        # A client that gave up waiting is what some tests are about.
        self.server.handle_error = lambda *args: None
        self.url = "http://127.0.0.1:%d/api/sources/studio/progress" % self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def frames(self):
        return [frame for _, _, body in list(self.posts) for frame in body["frames"]]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Server:
    """ComfyUI's PromptServer, as far as the companion touches it."""

    def __init__(self):
        self.sent = []

    def send_sync(self, event, data, sid=None):
        self.sent.append((event, data, sid))


def state(prompt, nodes):
    return {
        "prompt_id": prompt,
        "nodes": {
            name: {
                "value": value, "max": 20, "state": "running", "node_id": name,
                "prompt_id": prompt, "display_node_id": name, "parent_node_id": None, "real_node_id": name,
            }
            for name, value in nodes.items()
        },
    }


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to that in %s s" % seconds)


class CompanionTest(unittest.TestCase):
    def setUp(self):
        self.weir = Weir()
        self.addCleanup(self.weir.close)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.token_file = os.path.join(self.folder, "token")
        with open(self.token_file, "w", encoding="utf-8") as file:
            file.write(TOKEN + "\n")
        self.server = Server()

    def start(self, url=None, interval=companion.INTERVAL):
        post = companion.Post(url or self.weir.url, self.token_file, timeout=1.0)
        running = companion.Companion(post, interval=interval)
        companion.listen(self.server, running.mailbox)
        running.start()
        self.addCleanup(running.stop)
        return running

    def test_what_the_server_sends_goes_its_way_unchanged(self):
        self.start()
        image = object()
        self.server.send_sync(1, image, "someone")
        self.server.send_sync("status", {"status": {}})
        self.server.send_sync("progress", {"prompt_id": "p", "node": "1", "value": 1, "max": 2}, sid="someone")
        self.assertEqual(
            self.server.sent,
            [
                (1, image, "someone"),
                ("status", {"status": {}}, None),
                ("progress", {"prompt_id": "p", "node": "1", "value": 1, "max": 2}, "someone"),
            ],
        )
        wait_for(lambda: self.weir.frames())
        self.assertEqual([frame["type"] for frame in self.weir.frames()], ["progress"])

    def test_a_report_carries_the_token_and_how_far_it_is_and_nothing_else(self):
        self.start()
        self.server.send_sync("execution_cached", {"prompt_id": "p", "nodes": {"1"}, "timestamp": 5}, "c")
        self.server.send_sync("executed", {"prompt_id": "p", "node": "9", "output": {"text": ["private"]}}, "c")
        self.server.send_sync("progress_state", state("p", {"2": 3}), "c")
        self.server.send_sync(
            "execution_error",
            {"prompt_id": "p", "exception_type": "E", "exception_message": "private", "current_inputs": "private"},
            "c",
        )
        wait_for(lambda: len(self.weir.frames()) == 4)
        _, headers, body = self.weir.posts[0]
        self.assertEqual(headers["authorization"], "Bearer " + TOKEN)
        self.assertEqual(headers["content-type"], "application/json")
        self.assertEqual(body["version"], 1)
        self.assertEqual(
            body["frames"],
            [
                {"type": "execution_cached", "data": {"prompt_id": "p", "nodes": ["1"]}},
                {"type": "executed", "data": {"prompt_id": "p", "node": "9"}},
                {
                    "type": "progress_state",
                    "data": {
                        "prompt_id": "p",
                        "nodes": {"2": {"value": 3, "max": 20, "state": "running", "real_node_id": "2"}},
                    },
                },
                {"type": "execution_error", "data": {"prompt_id": "p", "exception_type": "E"}},
            ],
        )

    def test_many_updates_are_few_posts_with_the_newest(self):
        self.start()
        end = time.monotonic() + 1.5
        value = 0
        while time.monotonic() < end:
            value += 1
            self.server.send_sync("progress_state", state("p", {"2": value}), "c")
            time.sleep(0.002)
        wait_for(lambda: self.weir.frames()[-1]["data"]["nodes"]["2"]["value"] == value)
        times = [at for at, _, _ in self.weir.posts]
        self.assertLessEqual(len(times), 9)
        self.assertGreater(min(b - a for a, b in zip(times, times[1:])), 0.2)
        self.assertEqual(len(self.weir.frames()), len(times))

    def test_a_sampler_never_waits(self):
        for delay, url in [(5.0, None), (0.0, "http://127.0.0.1:9/api/sources/x/progress")]:
            self.weir.delay = delay
            self.server = Server()
            running = self.start(url)
            longest = 0.0
            begun = time.perf_counter()
            for value in range(20000):
                before = time.perf_counter()
                self.server.send_sync("progress_state", state("p%d" % (value % 700), {"2": value}), "c")
                longest = max(longest, time.perf_counter() - before)
            took = (time.perf_counter() - begun) / 20000
            self.assertLess(took, 0.0005, "a call took that long on average")
            self.assertLess(longest, 0.5)
            self.assertLessEqual(len(running.mailbox), companion.WAITING_MAX)
            self.assertEqual(len(self.server.sent), 20000)

    def test_a_weir_that_comes_back_is_told_what_was_dropped(self):
        self.weir.status = 503
        self.start(interval=0.01)
        self.server.send_sync("execution_start", {"prompt_id": "p", "timestamp": 1}, "c")
        wait_for(lambda: self.weir.posts)
        for number in range(companion.WAITING_MAX + 5):
            self.server.send_sync("executing", {"prompt_id": "p", "node": str(number)}, "c")
        self.weir.status = 202
        last = str(companion.WAITING_MAX + 4)
        wait_for(lambda: any(frame["data"].get("node") == last for frame in self.weir.frames()))
        taken = [body for _, _, body in self.weir.posts[1:]]
        self.assertEqual(sum(body["dropped"] for body in taken), 6)
        nodes = [frame["data"].get("node") for body in taken for frame in body["frames"]]
        self.assertEqual(nodes[-1], last)
        self.assertEqual(len(nodes), companion.WAITING_MAX)
        self.assertTrue(all(len(body["frames"]) <= companion.POST_FRAMES_MAX for body in taken))

    def test_a_connection_that_weir_closed_meanwhile_is_no_trouble(self):
        self.weir.handler.timeout = 0.05
        self.start(interval=0.01)
        with self.assertNoLogs(companion.log, logging.INFO):
            for count in range(1, 4):
                self.server.send_sync("execution_start", {"prompt_id": str(count), "timestamp": 1})
                wait_for(lambda: len(self.weir.frames()) == count)
                wait_for(lambda: self.weir.hung_up == count)

    def test_the_order_of_a_prompt_is_kept_and_older_progress_gives_way(self):
        mailbox = companion.Mailbox()
        mailbox.put("execution_start", {"prompt_id": "p"})
        mailbox.put("progress_state", state("p", {"1": 1}))
        mailbox.put("executing", {"prompt_id": "p", "node": "1"})
        frames, _ = mailbox.take()
        mailbox.put("progress_state", state("p", {"1": 2}))
        mailbox.put("execution_success", {"prompt_id": "p"})
        mailbox.give_back(frames, 0)
        frames, dropped = mailbox.take()
        self.assertEqual(dropped, 0)
        self.assertEqual(
            [kind for kind, _ in frames.values()],
            ["execution_start", "executing", "progress_state", "execution_success"],
        )
        self.assertEqual(list(frames.values())[2][1]["nodes"]["1"]["value"], 2)

    def test_trouble_is_said_once_and_without_the_token(self):
        self.weir.status = 401
        with self.assertLogs("weir_companion", logging.INFO) as logged:
            running = self.start(interval=0.01)
            running._stopping.wait = lambda seconds: time.sleep(0.01)
            for _ in range(5):
                self.server.send_sync("executing", {"prompt_id": "p", "node": "1"}, "c")
                time.sleep(0.05)
            wait_for(lambda: len(self.weir.posts) >= 3)
            self.weir.status = 202
            wait_for(lambda: any("again" in line for line in logged.output))
        self.assertEqual(sum("refuses the token" in line for line in logged.output), 1)
        self.assertNotIn(TOKEN, "".join(logged.output))

    def test_a_refused_report_is_not_repeated(self):
        self.weir.status = 413
        running = self.start(interval=0.01)
        self.server.send_sync("executing", {"prompt_id": "p", "node": "1"}, "c")
        wait_for(lambda: self.weir.posts and len(running.mailbox) == 0)
        self.weir.status = 202
        self.server.send_sync("executing", {"prompt_id": "p", "node": "2"}, "c")
        wait_for(lambda: len(self.weir.posts) == 2)
        body = self.weir.posts[1][2]
        self.assertEqual([frame["data"]["node"] for frame in body["frames"]], ["2"])
        self.assertEqual(body["dropped"], 1)

    def test_odd_values_fail_nobody(self):
        running = self.start(interval=0.01)
        self.server.send_sync("progress_state", {"prompt_id": "p", "nodes": {"1": 7, "2": {"value": float("nan")}}})
        self.server.send_sync("progress_state", {"prompt_id": "q", "nodes": None})
        self.server.send_sync("execution_cached", {"prompt_id": "p", "nodes": None})
        self.server.send_sync("progress", {"prompt_id": "p", "node": object(), "value": float("inf"), "max": 1})
        self.server.send_sync("progress", {"prompt_id": ["no", "hash"], "node": "1"})
        self.server.send_sync("progress_state", state("big", {str(n): n for n in range(20000)}))
        wait_for(lambda: len(running.mailbox) == 0 and self.weir.frames())
        self.server.send_sync("executing", {"prompt_id": "p", "node": "after"})
        wait_for(lambda: self.weir.frames()[-1]["data"].get("node") == "after")
        self.assertEqual(len(self.server.sent), 7)

    def test_it_listens_once(self):
        self.start()
        self.assertFalse(companion.listen(self.server, companion.Mailbox()))

    def test_without_an_address_it_does_nothing(self):
        with self.assertLogs("weir_companion", logging.WARNING):
            self.assertIsNone(companion.install(self.server, self.folder))
        self.assertFalse(hasattr(self.server.send_sync, "is_weir_companion"))
        with open(os.path.join(self.folder, "companion.json"), "w", encoding="utf-8") as file:
            file.write("{broken")
        with self.assertLogs("weir_companion", logging.WARNING):
            self.assertIsNone(companion.install(self.server, self.folder))
        with open(os.path.join(self.folder, "companion.json"), "w", encoding="utf-8") as file:
            json.dump({"url": self.weir.url, "token_file": self.token_file}, file)
        running = companion.install(self.server, self.folder)
        self.addCleanup(running.stop)
        self.server.send_sync("executing", {"prompt_id": "p", "node": "1"})
        wait_for(lambda: self.weir.frames())

    def test_the_environment_comes_first(self):
        environment = {"WEIR_COMPANION_URL": "http://a/x", "WEIR_COMPANION_TOKEN_FILE": "/t"}
        self.assertEqual(companion.settings(self.folder, environment), ("http://a/x", "/t"))
        self.assertIsNone(companion.settings(self.folder, {}))
        for url in ["ftp://a/x", "a/x", ""]:
            with self.assertRaises(ValueError):
                companion.Post(url, "/t")


if __name__ == "__main__":
    unittest.main()
