"""A server that speaks vLLM's protocol, for tests: no vLLM is here.

It knows completions with token ids, adapters that are loaded and unloaded by path, and weights
that take the place of the base's, and draws from a tiny model as it read it from disk. As with
vLLM, new weights answer from what the old ones computed until that is dropped.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch

from plumbline.lm.generation import SamplingConfig, generate


class Server:
    """What a vLLM server does, for one tiny model."""

    def __init__(self, base_folder: Path, **behavior):
        self.base, self.context = str(base_folder), behavior.get("context", 256)
        self.runtime_loading = behavior.get("runtime_loading", True)
        self.processed = behavior.get("processed", True)
        self.says_ids = behavior.get("says_ids", True)
        self.fails = behavior.get("fails", 0)  # how many completions are lost on their way
        self.blur = behavior.get("blur", 0.0)  # error of its log-probabilities
        self.weighs = behavior.get("weighs", self.base)  # the folder of the base's weights
        self.device = "cuda"
        self.label = "default"
        self.ends_by = None
        self.keeps_prefixes = 0  # how many times they are not dropped
        self.models: dict[str, object] = {}
        self.waiting = None  # weights that answer once prefixes are dropped
        self.development = behavior.get("development", True)
        self.seen: list[tuple[str, dict]] = []
        self.answered = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                if self.path == "/weight_info" and server.development:
                    self.answer(200, {"weight_version": server.label})
                elif self.path.startswith("/server_info") and server.development:
                    device = {"device_config": {"device": server.device}}
                    self.answer(200, {"vllm_config": device})
                elif self.path == "/weight_info" or self.path.startswith("/server_info"):
                    self.answer(404, {"detail": "Not Found"})
                else:
                    self.answer(200, {"data": [{"id": "tiny", "root": server.base}]})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                self.answer(*server.respond(self.path, body))

            def answer(self, status, said):
                kind = "text/plain" if isinstance(said, str) else "application/json"
                content = (said if isinstance(said, str) else json.dumps(said)).encode()
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self):
        self._http.shutdown()
        self._http.server_close()

    def respond(self, path, body):
        with self._lock:
            self.seen.append((path, body))
            if path == "/v1/load_lora_adapter":
                return self._load(body)
            if path == "/v1/unload_lora_adapter":
                del self.models[body["lora_name"]]
                return 200, "Success"
            if path == "/update_weight_version" and self.development:
                self.label = body["new_version"]
                return 200, {"success": True}
            if path in ("/update_weight_version", "/collective_rpc", "/reset_prefix_cache"):
                return self._take_weights(path, body)
            if self.fails:
                self.fails -= 1
                return error(503, "overloaded")
            answer = self._complete(body)
            self.answered += len(body["prompt"]) > 1  # and not those by which weights are compared
            return answer

    def _load(self, body):
        from peft import PeftModel

        if not self.runtime_loading:
            return 404, {"detail": "Not Found"}
        if body["lora_name"] in self.models:
            return error(400, "The lora adapter has already been loaded.")
        if not Path(body["lora_path"]).is_dir():
            return error(404, f"Loading lora failed: No adapter found for {body['lora_path']}")
        base = self._read(self.weighs)
        self.models[body["lora_name"]] = PeftModel.from_pretrained(base, body["lora_path"]).eval()
        return 200, "Success"

    def _take_weights(self, path, body):
        if not self.development:
            return 404, {"detail": "Not Found"}
        if path == "/collective_rpc":
            assert body["method"] == "reload_weights"
            self.waiting = self._read(body["kwargs"]["weights_path"])
            return 200, {"results": [None]}
        if self.keeps_prefixes:
            self.keeps_prefixes -= 1
            return 200, {"success": False}
        self.models["tiny"] = self.waiting
        return 200, {"success": True}

    @staticmethod
    def _read(folder):
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(folder).eval()

    def _complete(self, body):
        if body["model"] == "tiny" and "tiny" not in self.models:
            self.models["tiny"] = self._read(self.weighs)
        model = self.models.get(body["model"])
        if model is None:
            return error(404, f"The model `{body['model']}` does not exist.")
        room = self.context - len(body["prompt"])
        if room < 1:
            return error(400, f"This model's maximum context length is {self.context} tokens.")
        config = SamplingConfig(
            temperature=body["temperature"], max_new_tokens=min(body["max_tokens"], room)
        )
        ends = frozenset(body["stop_token_ids"])
        (drawn,) = generate(model, [body["prompt"]], [body["seed"]], config, end_ids=ends, pad_id=0)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([body["prompt"]])).logits[0, -1]
        divisor = body["temperature"] if self.processed else 1.0
        top = float((logits / divisor).log_softmax(-1).max())
        choice = {
            "index": 0,
            "text": "",
            "finish_reason": self.ends_by or ("stop" if drawn.finished else "length"),
            "logprobs": {
                "token_logprobs": [logprob + self.blur for logprob in drawn.logprobs],
                "top_logprobs": [{"token": top}],
            },
        }
        if self.says_ids:
            choice["token_ids"] = drawn.ids
        return 200, {"choices": [choice]}


def error(status, message):
    return status, {"error": {"message": message, "type": "BadRequestError", "code": status}}
