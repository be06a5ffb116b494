"""A small HTTP server that speaks vLLM's and SGLang's protocols over a model of a test, and may misbehave."""

from __future__ import annotations

import contextlib
import json
import math
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from torch import Tensor

from tests.models import tiny_lm

VOCABULARY = 300
CONTEXT = 64


@dataclass
class Faults:
    """How it is not what it should be; may be changed while it serves.

    Attributes:
        cap: of log-probabilities, as vLLM's --max-logprobs.
        silent_cap: tells so many at most, and does not say so.
        noise: up to so many nats, on what it tells of sampled tokens, as other batches bring it.
        own_temperature: of sampled tokens, whatever a request says.
        statuses: of the answers that come next, instead of answering.
        hung: set while it takes requests and answers none of them.
        unwell: /health says so.
        forget_positions: tells of so many positions less.
        change: what is done to the entries of each position, ``[(id, log-probability or None)]``.
        repeats: tells of a prompt that it has seen before what it told of the first token, again and again.
        key: that it asks for.
        hangs_up: closes each connection behind its answer, and does not announce that.
        cut_short: leaves out the last bytes of so many answers, and hangs up.
    """

    cap: int | None = None
    silent_cap: int | None = None
    noise: float = 0.0
    own_temperature: float | None = None
    statuses: list[int] = field(default_factory=list)
    hung: bool = False
    unwell: bool = False
    forget_positions: int = 0
    change: Callable[[list[tuple[int, float | None]]], list[tuple[int, float | None]]] | None = None
    repeats: bool = False
    key: str = ""
    hangs_up: bool = False
    cut_short: int = 0


class Engine:
    """The server. Its model and its faults are for the test to change.

    Args:
        kind: ``vllm`` or ``sglang``.
        model: token ids [1, L] to logits [1, L, V].
        encode: text to ids, for /tokenize, or None.
    """

    def __init__(
        self,
        kind: str,
        model: Callable[[Tensor], Tensor] | None = None,
        encode: Callable[[str], list[int]] | None = None,
        names: tuple[str, ...] = ("tiny",),
    ) -> None:
        self.kind = kind
        self.model = model or tiny_lm(VOCABULARY)
        self.encode = encode
        self.names = names
        self.version = "v3"
        self.faults = Faults()
        self.requests: list[dict[str, Any]] = []
        self.busiest = 0
        self.answered = 0
        self.connected = 0
        self.on_request: Callable[[int], None] = lambda number: None
        self._busy = 0
        self._chance = torch.Generator().manual_seed(0)
        self._seen: set[tuple[int, ...]] = set()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self.unblocked = threading.Event()
        self.port = 0
        self._server: ThreadingHTTPServer | None = None
        self.come_back()

    @property
    def reference(self) -> str:
        return f"{self.kind}:http://127.0.0.1:{self.port}"

    def come_back(self) -> None:
        """Listen, at the port where it was."""
        engine = self

        class Handler(_Handler):
            owner = engine

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, request, client_address) -> None:
                pass  # a client that hung up

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def die(self) -> None:
        """Close everything, as the end of its process would."""
        server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        server.server_close()
        with self._lock:
            sockets = list(self._sockets)
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def close(self) -> None:
        self.unblocked.set()
        self.die()

    # --- answers --------------------------------------------------------------------------------------

    def get(self, path: str) -> tuple[int, Any]:
        if path == "/health":
            return (503 if self.faults.unwell else 200), None
        if path == "/v1/models":
            cards = [
                {
                    **{"id": name, "object": "model", "created": 1, "owned_by": self.kind, "parent": None},
                    **{"root": f"/models/{name}-7b", "max_model_len": CONTEXT},
                }
                for name in self.names
            ]
            return 200, {"object": "list", "data": cards}
        if path == "/get_model_info" and self.kind == "sglang":
            return 200, {
                "model_path": "/models/tiny-7b",
                "is_generation": True,
                "weight_version": self.version,
            }
        return 404, {"detail": "Not Found"}

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/v1/completions" and self.kind == "vllm":
            return self._completion(body)
        if path == "/tokenize" and self.kind == "vllm" and self.encode is not None:
            ids = self.encode(body["prompt"])
            return 200, {"count": len(ids), "max_model_len": CONTEXT, "tokens": ids, "token_strs": None}
        if path == "/generate" and self.kind == "sglang":
            return self._generated(body)
        return 404, {"detail": "Not Found"}

    def _completion(self, body: dict[str, Any]) -> tuple[int, Any]:
        prompt = body["prompt"]
        if body["model"] not in self.names:
            return 404, _error(f"The model `{body['model']}` does not exist.")
        if len(prompt) + body["max_tokens"] > CONTEXT:
            return 400, _error(f"This model's maximum context length is {CONTEXT} tokens.")
        for name, what in (("prompt_logprobs", "prompt"), ("logprobs", "sample")):
            wanted = body.get(name) or 0
            if self.faults.cap is not None and wanted > self.faults.cap:
                return 400, _error(
                    f"Requested {what} logprobs of {wanted}, which is greater than max allowed: "
                    f"{self.faults.cap}"
                )
        log_probs = self._log_probs(prompt)
        told: list[Any] | None = None
        if "prompt_logprobs" in body:
            told = [None]
            for at in range(1, len(prompt)):
                entries = self._entries(log_probs[at - 1], body["prompt_logprobs"])
                row = {}
                own = float(log_probs[at - 1, prompt[at]])
                rank = int((log_probs[at - 1] >= own).sum())
                for number, (token, value) in enumerate([(prompt[at], own), *entries]):
                    row[str(token)] = {
                        **{"logprob": None if value is None else max(value, -9999.0)},
                        **{"rank": number or rank, "decoded_token": f"<{token}>"},
                    }
                told.append(row)
            told = told[: len(told) - self.faults.forget_positions]
        sampled = None
        if body.get("logprobs") is not None:
            assert body["return_tokens_as_token_ids"]
            entries = self._entries(self._sampled(log_probs), body["logprobs"])
            sampled = {"top_logprobs": [{f"token_id:{token}": value for token, value in entries}]}
        choice = {
            **{"index": 0, "text": "x", "logprobs": sampled, "finish_reason": "length"},
            **{"stop_reason": None, "prompt_logprobs": told},
        }
        return 200, {"id": "cmpl-1", "object": "text_completion", "model": body["model"], "choices": [choice]}

    def _generated(self, body: dict[str, Any]) -> tuple[int, Any]:
        prompt = body["input_ids"] if "input_ids" in body else [299, *(self.encode or list)(body["text"])]
        sampled = body["sampling_params"]["max_new_tokens"]
        if len(prompt) + sampled > max(CONTEXT, len(prompt) if "text" in body else 0):
            return 400, _error(f"Input length ({len(prompt)} tokens) exceeds the maximum allowed length")
        log_probs = self._log_probs(prompt)
        start = body.get("logprob_start_len", -1)
        start = len(prompt) if start < 0 else start
        top = body.get("top_logprobs_num", 0)
        meta: dict[str, Any] = {"id": "1", "finish_reason": {"type": "length", "length": sampled}}
        meta["weight_version"] = self.version
        meta["input_token_logprobs"] = [
            [None if at == start else float(log_probs[at - 1, prompt[at]]), prompt[at], None]
            for at in range(start, len(prompt))
        ]
        if top:
            told: list[Any] = [
                [[value, token, None] for token, value in self._entries(log_probs[at - 1], top)]
                for at in range(start + 1, len(prompt))
            ]
            told = [None, *told]
            meta["input_top_logprobs"] = told[: len(told) - self.faults.forget_positions]
            entries = self._entries(self._sampled(log_probs), top)
            meta["output_top_logprobs"] = [[[value, token, None] for token, value in entries]]
        return 200, {"text": "x", "output_ids": [1] * sampled, "meta_info": meta}

    def _log_probs(self, prompt: list[int]) -> Tensor:
        with torch.no_grad():
            log_probs = self.model(torch.tensor([prompt]))[0].log_softmax(-1)
        if self.faults.repeats:
            if tuple(prompt) in self._seen:
                log_probs[1:-8] = log_probs[0]
            self._seen.add(tuple(prompt))
        return log_probs

    def _sampled(self, log_probs: Tensor) -> Tensor:
        noise = (torch.rand(log_probs.shape[-1], generator=self._chance) * 2 - 1) * self.faults.noise
        return (log_probs[-1] / (self.faults.own_temperature or 1.0) + noise).log_softmax(-1)

    def _entries(self, log_probs: Tensor, count: int) -> list[tuple[int, float | None]]:
        values, ids = log_probs.topk(min(count, self.faults.silent_cap or count))
        entries: list[tuple[int, float | None]] = list(zip(ids.tolist(), values.tolist(), strict=True))
        return entries if self.faults.change is None else self.faults.change(entries)

    # --- requests -------------------------------------------------------------------------------------

    def begun(self, path: str, body: dict[str, Any]) -> None:
        with self._lock:
            self.requests.append({"path": path} | body)
            self._busy += 1
            self.busiest = max(self.busiest, self._busy)
            number = len(self.requests)
        self.on_request(number)

    def ended(self) -> None:
        with self._lock:
            self._busy -= 1
            self.answered += 1

    def connection(self, sock: socket.socket, opened: bool) -> None:
        with self._lock:
            self.connected += opened
            (self._sockets.add if opened else self._sockets.discard)(sock)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    owner: Engine

    def setup(self) -> None:
        super().setup()
        self.owner.connection(self.connection, True)

    def finish(self) -> None:
        self.owner.connection(self.connection, False)
        super().finish()

    def do_GET(self) -> None:
        key = self.owner.faults.key
        if key and self.path != "/health" and self.headers.get("Authorization") != f"Bearer {key}":
            self._answer(401, {"error": "Unauthorized"})
            return
        self._answer(*self.owner.get(self.path))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        owner = self.owner
        owner.begun(self.path, body)
        try:
            if owner.faults.hung:
                owner.unblocked.wait(60)
            if owner.faults.statuses:
                self._answer(owner.faults.statuses.pop(0), _error("not now"))
            else:
                self._answer(*owner.post(self.path, body))
        finally:
            owner.ended()

    def _answer(self, status: int, document: Any) -> None:
        content = b"" if document is None else _json(document)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        faults = self.owner.faults
        if faults.cut_short and status == 200 and self.command == "POST":
            faults.cut_short -= 1
            content, self.close_connection = content[:-5], True
        self.wfile.write(content)
        if faults.hangs_up:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "BadRequestError", "param": None, "code": 400}}


def _json(document: Any) -> bytes:
    """As ``json`` writes it, where a NaN is written as NaN."""
    assert math.isnan(math.nan)
    return json.dumps(document).encode()


@contextlib.contextmanager
def engine(kind: str, **options: Any) -> Iterator[Engine]:
    made = Engine(kind, **options)
    try:
        yield made
    finally:
        made.close()
