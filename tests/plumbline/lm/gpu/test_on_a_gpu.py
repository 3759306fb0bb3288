"""Every fast path on a real GPU, captured and compiled, against the plain one.

Run with ``PLUMBLINE_TEST_GPU=1`` where there is a GPU. Compiling takes most of the time, so most
tests run uncompiled; each compiled function is looked at in one test, which is marked for it.
"""

from __future__ import annotations

import gc

import pytest
import torch

from plumbline.lm.adapters import using_adapter
from plumbline.lm.batches import collate
from plumbline.lm.drawing import uniform_numbers
from plumbline.lm.generation import SamplingConfig, generate
from plumbline.lm.gpu import decoder, memory, status
from plumbline.lm.gpu.attention import kernel_for
from plumbline.lm.gpu.checks import has_packed_pass
from plumbline.lm.gpu.head import head_logprobs
from plumbline.lm.gpu.packed_forward import use_packed_backbone
from plumbline.lm.gpu.packing import pack, side_by_side
from plumbline.lm.gpu.regions import SETTING
from plumbline.lm.gpu.sampling import generate_static, static_decoder
from plumbline.lm.gpu.states import packed_states
from plumbline.lm.gpu.status import FastPath, finding, findings
from plumbline.lm.logprobs import response_logprobs
from plumbline.lm.precision import compute_precision

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
GPU = torch.device("cuda")
END_IDS = frozenset(range(3, 9))


@pytest.fixture(autouse=True)
def nothing_is_known(request, monkeypatch):
    compiles = request.node.get_closest_marker("compiled") is not None
    monkeypatch.setenv(SETTING, "1" if compiles else "0")
    status.forget()
    yield
    status.forget()
    gc.collect()
    torch.cuda.empty_cache()


def test_the_attention_kernel_is_torchs_own():
    for heads, groups, size in ((14, 2, 64), (12, 2, 128), (4, 4, 8)):
        assert kernel_for(GPU, torch.bfloat16, heads, groups, size) in ("grouped", "repeated")
    assert kernel_for(GPU, torch.float32, 14, 2, 64) == "rectangle"
    assert kernel_for(GPU, torch.bfloat16, 4, 2, 12) == "rectangle"


@pytest.mark.parametrize("precision", ["model", "bfloat16"])
def test_packed_passes_are_right(kind, make, precision):
    model = make(kind).to(GPU)
    with compute_precision(precision, GPU):
        assert has_packed_pass(model), findings()


@pytest.mark.parametrize("precision", ["model", "bfloat16"])
def test_packed_passes_of_adapters_are_right(make, with_adapters, precision):
    model = with_adapters(make("qwen2")).to(GPU)
    with compute_precision(precision, GPU):
        assert has_packed_pass(model), findings()


@pytest.mark.compiled
@pytest.mark.parametrize("adapters", [False, True])
def test_compiled_layers_are_right(make, with_adapters, adapters):
    model = (with_adapters(make("qwen2")) if adapters else make("qwen2")).to(GPU)
    with compute_precision("bfloat16", GPU):
        assert has_packed_pass(model), findings()
    assert finding(FastPath.COMPILED, GPU, "decoder_layer").on


def test_several_roles_in_one_pass(make, with_adapters, batch):
    model = with_adapters(make("qwen2")).to(GPU)
    packing, roles = pack(batch), ("other", None, "default")
    alone = torch.cat([packed_states(model, packing, (role,)) for role in roles])
    together = packed_states(model, side_by_side(packing, 3), roles)
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=1e-3)
    with torch.autocast("cuda", torch.bfloat16):
        half = packed_states(model, side_by_side(packing, 3), roles, checkpointing=True)
    assert float((half.float() - alone).norm() / alone.norm()) < 0.1
    half.float().sum().backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if ".default." in n)


@pytest.mark.compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_fused_head(dtype):
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(300, 128, generator=generator).to(GPU, dtype).requires_grad_()
    weight = (0.2 * torch.randn(32000, 128, generator=generator)).to(GPU).requires_grad_()
    ids = torch.randint(32000, (300,), generator=generator).to(GPU)
    weights = torch.randn(2, 300, generator=generator).to(GPU)
    found = head_logprobs(states, weight, None, ids, 0.7, entropy_gradient=True)
    gradients = torch.autograd.grad((torch.stack(found) * weights).sum(), (states, weight))
    exact, matrix = states.detach().double().requires_grad_(), weight.detach().to(dtype).double()
    matrix.requires_grad_()
    normed = torch.log_softmax(exact @ matrix.t() / 0.7, -1)
    expected = (
        normed.gather(1, ids.unsqueeze(1)).squeeze(1),
        -(normed.exp() * normed).sum(-1),
    )
    wanted = torch.autograd.grad((torch.stack(expected) * weights).sum().double(), (exact, matrix))
    limit = 1e-4 if dtype is torch.float32 else 0.02
    for one, other in zip([*found, *gradients], [*expected, *wanted], strict=True):
        assert float((one.double() - other).norm() / other.norm()) < limit
    assert finding(FastPath.COMPILED, GPU, "look").on


def prompts_of(count):
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, 12, (count,), generator=generator).tolist()
    return [torch.randint(120, (n,), generator=generator).tolist() for n in lengths]


def statically(model, prompts, config, dtype=None, value_head=None):
    new = config.max_new_tokens
    columns = max(map(len, prompts)) + new
    made = static_decoder(model, rows=len(prompts), columns=columns, new_tokens=new, dtype=dtype)
    assert made is not None, findings()
    settings = (config.temperature, config.top_k, config.top_p)
    uniforms = uniform_numbers(range(len(prompts)), new)
    return made, generate_static(made, prompts, uniforms, settings, END_IDS, value_head)


def plainly(model, prompts, config, value_head=None):
    plain = config.model_copy(update={"snapshot": False, "precision": "model"})
    return generate(
        model, prompts, range(len(prompts)), plain, end_ids=END_IDS, pad_id=0, value_head=value_head
    )


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        pytest.param("qwen2", {}, marks=pytest.mark.compiled),
        ("qwen3", {}),
        ("qwen2", {"temperature": 0.7, "top_k": 9, "top_p": 0.9}),
    ],
)
def test_graphs_draw_what_the_plain_loop_draws(make, kind, more, monkeypatch):
    """In float32, where rounding hardly ever changes a token."""
    monkeypatch.setattr(decoder, "LOOK_EVERY", 4)
    monkeypatch.setattr(decoder, "_FEWEST_COLUMNS", 32)
    model = make(kind).to(GPU).eval()
    torch.manual_seed(5)
    head = torch.nn.Linear(48, 1).to(GPU)

    def value_head(states):
        return head(states).squeeze(-1)

    prompts, config = prompts_of(24), SamplingConfig(max_new_tokens=60, **more)
    expected = plainly(model, prompts, config, value_head)
    for attempt in range(2):  # the second one replays what the first one captured
        made, drawn = statically(model, prompts, config, value_head=value_head)
        same = 0
        for row, generation in enumerate(expected):
            length = int(drawn.lengths[row])
            if drawn.tokens[row, :length].tolist() != generation.ids:
                continue
            same += 1
            assert drawn.logprobs[row, :length].tolist() == pytest.approx(
                generation.logprobs, abs=2e-3
            )
            assert drawn.values[row, :length].tolist() == pytest.approx(generation.values, abs=5e-3)
            assert bool(drawn.finished[row]) == generation.finished
        assert same >= 0.9 * len(expected), attempt
    graphs = made._graphs._graphs
    assert len(graphs) > 2
    assert all(isinstance(graph, torch.cuda.CUDAGraph) for graph in graphs.values())
    assert finding(FastPath.GRAPHS, GPU) is None or finding(FastPath.GRAPHS, GPU).on


def test_graphs_read_weights_that_have_moved(make):
    model, other = make("qwen2").to(GPU).eval(), make("qwen2", seed=1).to(GPU).eval()
    prompts, config = prompts_of(16), SamplingConfig(max_new_tokens=24)
    statically(model, prompts, config)
    made, _ = statically(model, prompts, config)
    model.load_state_dict(other.state_dict())
    again, drawn = statically(model, prompts, config)
    assert again is made
    expected = plainly(other, prompts, config)
    same = sum(
        drawn.tokens[row, : int(drawn.lengths[row])].tolist() == generation.ids
        for row, generation in enumerate(expected)
    )
    assert same >= 14


@pytest.mark.compiled
def test_in_bfloat16_graphs_are_as_near_to_float32_as_the_plain_loop(make, with_adapters):
    """By the log-probabilities of the tokens that were drawn: of these random numbers, no others.

    Rounding changes some tokens, and all that follow, so each is read again in float32.
    """
    model = with_adapters(make("qwen3")).to(GPU).eval()
    prompts, config = prompts_of(32), SamplingConfig(max_new_tokens=8)
    with using_adapter(model, "default"):
        _, drawn = statically(model, prompts, config, dtype=torch.bfloat16)
        rows = [
            ids[:length] for ids, length in zip(drawn.tokens.tolist(), drawn.lengths, strict=True)
        ]
        batch = collate(prompts, rows, 0)
        exact = plain_logprobs(model, batch)
        with torch.autocast("cuda", torch.bfloat16):
            plain = plain_logprobs(model, batch)
    mask = batch.response_mask.to(GPU)
    ours = drawn.logprobs[:, : mask.shape[1]]
    error, theirs = ((x - exact)[mask].square().mean().sqrt() for x in (ours, plain))
    assert float(error) < 2 * float(theirs)
    chosen = torch.tensor([g.ids[0] for g in plainly(model, prompts, config)], device=GPU)
    assert int((drawn.tokens[:, 0] == chosen).sum()) >= 20


def plain_logprobs(model, batch):
    """The log-probability [B, R] of each response token by transformers' own pass."""
    batch = batch.to(GPU)
    with torch.no_grad():
        logits = model(
            input_ids=batch.ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
        ).logits.float()
    width = batch.response_mask.shape[1]
    normed = torch.log_softmax(logits[:, -width - 1 : -1], -1)
    return normed.gather(-1, batch.response_ids.unsqueeze(-1)).squeeze(-1)


def test_a_batch_on_either_device_is_read(make, batch):
    model = make("qwen2").to(GPU).eval()
    found = response_logprobs(model, batch)
    assert found.logprobs.device.type == "cuda"
    torch.testing.assert_close(response_logprobs(model, batch.to(GPU)).logprobs, found.logprobs)
    own = make("qwen2").eval()
    torch.testing.assert_close(
        found.logprobs.cpu(), response_logprobs(own, batch).logprobs, atol=2e-3, rtol=1e-3
    )


def test_a_packed_backbone_in_a_model_of_transformers(make):
    plain, packed = make("qwen2").to(GPU), make("qwen2").to(GPU)
    use_packed_backbone(packed)
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]], device=GPU)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]], device=GPU)
    with torch.autocast("cuda", torch.bfloat16):
        one = packed(input_ids=ids, attention_mask=mask, use_cache=False).logits[mask.bool()]
        other = plain(input_ids=ids, attention_mask=mask, use_cache=False).logits[mask.bool()]
    assert float((one.float() - other.float()).norm() / other.float().norm()) < 0.1
    one.float().sum().backward()
    assert any(found.on for (path, _, _), found in findings().items() if path is FastPath.PASSES)


def test_memory_that_runs_out_is_survived(make, caplog):
    _, total = torch.cuda.mem_get_info()
    held = torch.cuda.memory_allocated()

    def work(tokens):
        return torch.empty(tokens * (total // 1000), dtype=torch.uint8, device=GPU).numel()

    room = memory.Room(1200)
    assert room.use(work) == 600 * (total // 1000)
    assert "ran out" in caplog.text
    gc.collect()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_allocated() == held


def test_the_tokens_that_fit_are_a_sensible_number(make):
    model = make("qwen2").to(GPU)
    for learns in (True, False):
        tokens = memory.tokens_that_fit(model, learns=learns)
        assert tokens >= 1024
        assert tokens % 1024 == 0


def test_logprobs_of_long_and_short_rows_together(make):
    """Rows of very different lengths, some longer than the window."""
    model = make("mistral, short window").to(GPU).eval()
    batch = collate([[5] * 3, [6] * 200, [7] * 50], [[8, 9], [10] * 90, [11]], 0)
    found = response_logprobs(model, batch).logprobs.cpu()
    expected = response_logprobs(make("mistral, short window").eval(), batch).logprobs
    torch.testing.assert_close(found, expected, atol=5e-3, rtol=1e-2)
