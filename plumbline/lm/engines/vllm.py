"""A vLLM server, reached over HTTP; the policy's weights are sent to it before each round.

``plumbline rollouts up`` starts one (`plumbline.lm.engines.vllm_process`), with the same base that
the policy has.

Weights are sent as files in a folder that the server can read. An adapter is loaded there under a
new name, and the one before is unloaded: with the old name, the server would answer from its cache
of prefixes that the old weights computed. Where all weights train, the server reads them in place
of its own, and drops that cache. So one training at a time may do that with a server, while several
may send adapters; and when it ends, the server gets its own weights back.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.errors import ModelError
from plumbline.lm.batches import collate
from plumbline.lm.engines.engine import Server
from plumbline.lm.engines.server_use import (
    ABOUT,
    FORGET,
    LABELED,
    MAY_BE_UNKNOWN,
    RELOAD,
    ServerUse,
    label,
    label_of_others,
    own_weights,
    unload,
    weights_from,
)
from plumbline.lm.engines.vllm_answers import checked_response, json_of, message_of
from plumbline.lm.generation import Generation, SamplingConfig
from plumbline.lm.model_folder import ADAPTER
from plumbline.lm.policy import Policy
from plumbline.proxies import client_options
from plumbline.runs.processes import of_all_processes, this_process
from plumbline.temporary import TemporaryFolder

if TYPE_CHECKING:
    import httpx

#: Requests on their way at once; the server batches them.
_AT_ONCE = 64
#: Seconds before each further attempt at a request that got no answer.
_WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
#: Seconds that one response may take.
_PATIENCE = 600.0
_BUSY = frozenset({408, 425, 429, 502, 503, 504})
_SEEDS = 2**63
#: Tokens by which the server's weights are compared with the policy's, and how far their
#: log-probabilities may be apart on average, in nats: 16-bit formats differ by some hundredths.
_COMPARED, _APART = 16, 0.1


class VLLMEngine:
    """Samples from a vLLM server.

    Its log-probabilities come from other kernels, mostly in bfloat16, so they are computed again
    and importance weights correct for the difference. Each response has a seed of its own; with the
    same seed vLLM samples the same tokens where it computes the same numbers, and batching or
    another version changes these. A repeated run is the same up to such rounding, not to the byte.
    """

    exact = False
    remote = True

    def __init__(
        self,
        sampling: SamplingConfig,
        server: Server,
        waits: Sequence[float] = _WAITS,
    ) -> None:
        import httpx

        assert server.url is not None  # the config sees to it
        self._url, self._sampling, self._waits = server.url.rstrip("/"), sampling, waits
        self._base = server.model
        self._client = httpx.Client(
            base_url=self._url,
            timeout=httpx.Timeout(_PATIENCE, connect=10.0),
            limits=httpx.Limits(max_connections=_AT_ONCE),
            **client_options(self._url),
        )
        if server.adapters is not None:
            server.adapters.mkdir(parents=True, exist_ok=True)
        self._temporary = TemporaryFolder(server.adapters)
        self._folder = self._temporary.path
        self._run = f"plumbline-{uuid.uuid4().hex[:12]}"
        self._refreshes = 0
        self._model: str | None = None
        """The name of what answers: of the newest adapter, or of the base."""
        self._served = ""
        self._use: ServerUse | None = None

    def refresh(self, policy: Policy, iteration: int) -> None:
        """Send the policy's weights to the server, once for all processes of a training."""
        adapted = hasattr(policy.model, "peft_config")
        if self._base is None:
            own = policy.model.peft_config[ADAPTER].base_model_name_or_path if adapted else None
            self._base = str(own or policy.model.name_or_path)
        if this_process() == 0:
            first = self._use is None
            use = self._use = self._use or self._begin(policy, self._base, adapted=adapted)
            self._refreshes += 1
            if adapted:
                self._send_adapter(policy, use)
            else:
                self._send_weights(policy)
            if first:
                self._check_logprobs(policy)
            if first or not adapted:  # vLLM may pass over weights that it does not find
                self._check_weights(policy)
        self._model = of_all_processes(self._model)[0]

    def _begin(self, policy: Policy, base: str, *, adapted: bool) -> ServerUse:
        """Return the use of the server; raise `ModelError` where it has other weights."""
        self._served, root = self._name_and_root(base)
        use = ServerUse(self._url, alone=not adapted)
        others = label_of_others(self._send("GET", LABELED, None)) if adapted else None
        if others is not None:
            raise ModelError(
                f"The server at {self._url} has the weights of a training that did not come to its "
                f"end ({others}). Start it again, with the policy's base."
            )
        if not adapted and _ties_head(policy) and self._computes_on_cpu():
            raise ModelError(
                f"The server at {self._url} computes on the CPU, where vLLM keeps the old output "
                "head of a model that ties it to its embeddings. Set tuning.method to lora, or "
                "rollouts.engine to native, or start the server on a GPU."
            )
        use.at_end.extend([] if adapted else own_weights(root))
        return use

    def _computes_on_cpu(self) -> bool:
        settings = self._send("GET", ABOUT, None).get("vllm_config", {})
        return bool(settings.get("device_config", {}).get("device") == "cpu")

    def _send_adapter(self, policy: Policy, use: ServerUse) -> None:
        name = f"{self._run}-{self._refreshes}"
        folder = self._folder / name
        policy.model.save_pretrained(
            folder, selected_adapters=[policy.adapter], save_embedding_layers=False
        )
        self._post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})
        use.at_end[:] = [unload(name)]
        before, self._model = self._model, name
        if before is not None:
            self._post(*unload(before))
            shutil.rmtree(self._folder / before, ignore_errors=True)

    def _send_weights(self, policy: Policy) -> None:
        folder = self._folder / f"weights-{self._refreshes}"
        policy.model.save_pretrained(folder)
        self._post(*label(f"{self._run}-{self._refreshes}"))  # before, or a kill would leave none
        self._post(*weights_from(folder))
        self._forget_prefixes()
        shutil.rmtree(folder, ignore_errors=True)
        self._model = self._served

    def _forget_prefixes(self) -> None:
        """Have the server drop what its old weights computed."""
        for wait in (*self._waits, None):
            if self._post(FORGET, {}).get("success", True):
                return
            if wait is None:
                raise ModelError(
                    f"The server at {self._url} keeps what its old weights computed, as it does "
                    "while it answers others. Nobody else may use it while all of its weights are "
                    "replaced. The same command resumes from the last checkpoint."
                )
            time.sleep(wait)

    def sample(
        self, policy: Policy, prompts: Sequence[Sequence[int]], seeds: Sequence[int]
    ) -> list[Generation]:
        """Return one response to each prompt, each asked for with its own seed.

        A request without an answer is sent again; the answers that did come are kept.
        """

        def ask(prompt: Sequence[int], seed: int) -> Generation:
            choice = self._complete(policy, prompt, seed, self._sampling.temperature)
            return self._generation(choice, policy.end_ids, self._sampling.max_new_tokens)

        with ThreadPoolExecutor(min(_AT_ONCE, max(1, len(prompts)))) as threads:
            return list(threads.map(ask, prompts, seeds))

    def release(self) -> None:
        """Do nothing: the server's memory is its own."""

    def _complete(
        self, policy: Policy, prompt: Sequence[int], seed: int, temperature: float, tokens: int = 0
    ) -> dict[str, Any]:
        """Return the server's only choice for a prompt."""
        # Everything that shapes the distribution is named: what is left out, vLLM takes from the
        # model's generation_config.json.
        request = {
            "model": self._model,
            "prompt": list(prompt),
            "max_tokens": tokens or self._sampling.max_new_tokens,
            "temperature": temperature,
            "top_p": 1.0,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "seed": seed % _SEEDS,
            "stop_token_ids": sorted(policy.end_ids),
            "logprobs": 1,
            "return_token_ids": True,
        }
        choice: dict[str, Any] = self._post("/v1/completions", request)["choices"][0]
        return choice

    def _generation(
        self, choice: Mapping[str, Any], end_ids: frozenset[int], tokens: int
    ) -> Generation:
        """Return a response of at most ``tokens``; raise `ModelError` where it is not whole."""
        reason = choice.get("finish_reason")
        response = checked_response(
            f"The server at {self._url}",
            choice.get("token_ids"),
            (choice.get("logprobs") or {}).get("token_logprobs"),
            ended=reason == "stop",
            end_ids=end_ids,
        )
        if reason not in ("stop", "length"):
            raise ModelError(
                f"The server at {self._url} broke a response off ({reason}), as it does where "
                "somebody pauses it. The same command resumes from the last checkpoint."
            )
        if reason == "length" and len(response.ids) < tokens:
            raise ModelError(
                f"The server at {self._url} cut a response after {len(response.ids)} of {tokens} "
                f"tokens. {self._too_long}."
            )
        return response

    @property
    def _too_long(self) -> str:
        return (
            f"A prompt with sampling.max_new_tokens ({self._sampling.max_new_tokens}) is longer "
            "than its context. Start it with a larger --max-model-len, or lower "
            "sampling.max_new_tokens"
        )

    def _name_and_root(self, base: str) -> tuple[str, str]:
        """Return the server's name of the policy's base, and where it has it from.

        Raises `ModelError` where the server has another base.
        """
        models = self._send("GET", "/v1/models", None)["data"]
        for model in models:
            names = {str(name) for name in (model["id"], model.get("root")) if name}
            if base in names or _same_folder(base, names):
                return str(model["id"]), str(model.get("root") or model["id"])
        served = {str(name) for m in models for name in (m["id"], m.get("root")) if name}
        raise ModelError(
            f"The server at {self._url} serves {', '.join(sorted(served)) or 'nothing'}, and "
            f"the policy's base is {base}. Start it with that base, or set rollouts.model to "
            "the name under which it has it."
        )

    def _check_weights(self, policy: Policy) -> None:
        """Raise `ModelError` where the server computes with other weights than the policy's."""
        prompt = [min(policy.end_ids)]
        tokens = min(_COMPARED, self._sampling.max_new_tokens)
        choice = self._complete(policy, prompt, 0, self._sampling.temperature, tokens)
        drawn = self._generation(choice, policy.end_ids, tokens)
        batch = collate([prompt], [drawn.ids], policy.pad_id)
        ours = policy.logprobs(batch, self._sampling.temperature).logprobs[0].tolist()
        errors = [abs(a - b) for a, b in zip(ours, drawn.logprobs, strict=False)]
        if errors and sum(errors) / len(errors) > _APART:
            raise ModelError(
                f"The server at {self._url} computes with other weights than the policy's: "
                f"log-probabilities of the same tokens are {sum(errors) / len(errors):.2f} nats "
                "apart. Start it again, with the policy's base."
            )

    def _check_logprobs(self, policy: Policy) -> None:
        """Raise `ModelError` where log-probabilities come from before the temperature.

        Of the same next token's distribution at two temperatures, the likeliest token must have
        two different shares.
        """
        wanted = self._sampling.temperature
        if wanted == 1.0:
            return
        prompt = [min(policy.end_ids)]
        highest = [
            max(choice["logprobs"]["top_logprobs"][0].values())
            for choice in (
                self._complete(policy, prompt, 0, temperature, 1) for temperature in (1.0, wanted)
            )
        ]
        if highest[0] == highest[1]:
            raise ModelError(
                f"The server at {self._url} gives log-probabilities from before the temperature "
                f"({wanted:g}), by which no importance can be corrected. Start it with "
                "--logprobs-mode processed_logprobs, or set sampling.temperature to 1."
            )

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._send("POST", path, body)

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        """Send a request until it is answered; return the answer."""
        import httpx

        for wait in (*self._waits, None):
            try:
                answer = self._client.request(method, path, json=body)
            except httpx.TransportError as error:
                if wait is None:
                    raise ModelError(
                        f"No vLLM server answers at {self._url}: {error or type(error).__name__} "
                        f"(tried {len(self._waits) + 1} times). Start it (plumbline rollouts up), "
                        "or set rollouts.url; the same command then resumes from the last "
                        "checkpoint."
                    ) from error
            else:
                if answer.is_success:
                    return json_of(answer)
                # A first attempt whose answer was lost has done its work already.
                if "already been loaded" in answer.text:
                    return {}
                if path in MAY_BE_UNKNOWN and answer.status_code == 404:
                    return {}
                if wait is None or answer.status_code not in _BUSY:
                    raise self._refusal(path, answer)
            time.sleep(wait)
        raise AssertionError("unreachable")

    def _refusal(self, path: str, answer: httpx.Response) -> ModelError:
        """Return what a refusal means, with the server's own words."""
        message = message_of(answer)
        if path == "/v1/load_lora_adapter":
            if message == "Not Found" or answer.status_code == 405:
                means = (
                    "Adapters cannot be loaded there. Start it by plumbline rollouts up, or with "
                    "--enable-lora and with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its "
                    "environment"
                )
            else:
                means = (
                    "The adapter was not loaded. The server must be able to read "
                    f"{self._folder} (rollouts.adapters sets the folder), and its --max-lora-rank "
                    "must be no less than tuning.rank"
                )
        elif path in (RELOAD, FORGET):
            means = (
                "It did not take the policy's weights. It needs vLLM 0.20 or later, started by "
                "plumbline rollouts up (or with VLLM_SERVER_DEV_MODE=1 in its environment), and "
                f"must be able to read {self._folder} (rollouts.adapters sets the folder). Start "
                "it again: it may have lost its own weights"
            )
        elif "context length" in message or "max_model_len" in message:
            means = self._too_long
        elif answer.status_code == 404 and path == "/v1/completions":
            means = (
                "It has lost the policy's adapter, perhaps by a restart. The same command resumes "
                "from the last checkpoint and sends it again"
            )
        else:
            means = "It refused the request"
        return ModelError(
            f"The vLLM server at {self._url} answered {path} with {answer.status_code}. {means}. "
            f"It says: {message}"
        )


def _ties_head(policy: Policy) -> bool:
    head = policy.model.get_output_embeddings()
    return head is not None and head.weight is policy.model.get_input_embeddings().weight


def _same_folder(base: str, served: set[str]) -> bool:
    return any(Path(name).exists() and Path(name).resolve() == Path(base).resolve()
               for name in served)  # fmt: skip
