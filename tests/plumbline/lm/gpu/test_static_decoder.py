"""Decoding from a static cache: the responses of the plain loop, with the same random numbers."""

from __future__ import annotations

import pytest
import torch

from plumbline.lm.adapters import using_adapter
from plumbline.lm.drawing import uniform_numbers
from plumbline.lm.generation import SamplingConfig, generate
from plumbline.lm.gpu import decoder, sampling, status
from plumbline.lm.gpu.sampling import generate_static, static_decoder
from plumbline.lm.gpu.status import FastPath, finding

CPU = torch.device("cpu")
END_IDS = frozenset(range(3, 9))  # about one token in twenty ends a response


@pytest.fixture(autouse=True)
def nothing_is_known():
    status.forget()
    yield
    status.forget()


@pytest.fixture
def prompts():
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, 12, (19,), generator=generator).tolist()
    return [torch.randint(120, (n,), generator=generator).tolist() for n in lengths]


def plainly(model, prompts, config, end_ids=END_IDS, value_head=None):
    plain = config.model_copy(update={"snapshot": False})
    return generate(
        model, prompts, range(len(prompts)), plain, end_ids=end_ids, pad_id=0, value_head=value_head
    )


def decoder_for(model, prompts, config):
    new = config.max_new_tokens
    columns = max(map(len, prompts)) + new
    return static_decoder(model, rows=len(prompts), columns=columns, new_tokens=new)


def draw(made, prompts, config, end_ids=END_IDS, value_head=None):
    uniforms = uniform_numbers(range(len(prompts)), config.max_new_tokens)
    settings = (config.temperature, config.top_k, config.top_p)
    return generate_static(made, prompts, uniforms, settings, end_ids, value_head)


def statically(model, prompts, config, end_ids=END_IDS, value_head=None):
    model.eval()
    made = decoder_for(model, prompts, config)
    assert made is not None
    return made, draw(made, prompts, config, end_ids, value_head)


def assert_same(drawn, expected):
    for row, generation in enumerate(expected):
        length = int(drawn.lengths[row])
        assert drawn.tokens[row, :length].tolist() == generation.ids
        assert drawn.logprobs[row, :length].tolist() == pytest.approx(generation.logprobs, abs=1e-4)
        assert bool(drawn.finished[row]) == generation.finished
        if generation.values is not None:
            assert drawn.values[row, :length].tolist() == pytest.approx(generation.values, abs=1e-4)


@pytest.mark.parametrize(
    "more", [{}, {"temperature": 0.7}, {"top_k": 5, "top_p": 0.9}], ids=["plain", "cool", "filters"]
)
def test_the_responses_are_those_of_the_plain_loop(kind, make, prompts, more):
    if kind.endswith("window") or "windows" in kind:
        pytest.skip("texts that are longer than a window are decoded plainly")
    model = make(kind).eval()
    config = SamplingConfig(max_new_tokens=24, **more)
    expected = plainly(model, prompts, config)
    assert {generation.finished for generation in expected} == {True, False}
    _, drawn = statically(model, prompts, config)
    assert_same(drawn, expected)
    assert finding(FastPath.DECODING, CPU, type(model).__name__).on


def test_rows_that_have_ended_leave_and_the_others_move_together(make, prompts, monkeypatch):
    kept = []
    true_keep = decoder.StaticDecoder._keep

    def watched(self, rows, bucket):
        kept.append((len(rows), bucket))
        true_keep(self, rows, bucket)

    monkeypatch.setattr(decoder.StaticDecoder, "_keep", watched)
    monkeypatch.setattr(decoder, "LOOK_EVERY", 2)
    model = make("qwen2").eval()
    config = SamplingConfig(max_new_tokens=60)
    expected = plainly(model, prompts, config)
    _, drawn = statically(model, prompts, config)
    assert_same(drawn, expected)
    assert [bucket for _, bucket in kept] == [10, 5, 3, 2][: len(kept)]
    assert len(kept) >= 3
    assert all(live <= bucket for live, bucket in kept)


def test_steps_stop_soon_after_every_row_has_ended(make, prompts, monkeypatch):
    model = make("llama").eval()
    steps = []
    true_next = decoder.StaticDecoder._next
    monkeypatch.setattr(
        decoder.StaticDecoder,
        "_next",
        lambda self, rows, columns: (steps.append(rows), true_next(self, rows, columns)),
    )
    config = SamplingConfig(max_new_tokens=200)
    _, drawn = statically(model, prompts, config, end_ids=frozenset(range(60)))
    steps = steps[1:]  # of the self-check
    assert bool(drawn.finished.all())
    assert len(steps) <= int(drawn.lengths.max()) + 2 * decoder.LOOK_EVERY


def test_the_cache_is_looked_at_in_growing_parts(make, monkeypatch):
    monkeypatch.setattr(decoder, "_FEWEST_COLUMNS", 16)
    model = make("qwen3").eval()
    columns = []
    true_next = decoder.StaticDecoder._next
    monkeypatch.setattr(
        decoder.StaticDecoder,
        "_next",
        lambda self, rows, wide: (columns.append(wide), true_next(self, rows, wide)),
    )
    config = SamplingConfig(max_new_tokens=50)
    prompts = [[5, 6, 7], [8] * 9]
    _, drawn = statically(model, prompts, config, end_ids=frozenset())
    assert_same(drawn, plainly(model, prompts, config, end_ids=frozenset()))
    assert columns[1:] == [16] * 7 + [32] * 16 + [64] * 26


def test_prompts_that_stand_there_several_times_are_read_once(make, monkeypatch):
    model = make("qwen2").eval()
    prompts = [[5, 6, 7]] * 4 + [[8, 9]] * 3
    config = SamplingConfig(max_new_tokens=12)
    read = []
    true_pack = decoder.pack_texts
    monkeypatch.setattr(
        decoder, "pack_texts", lambda texts: (read.append(list(texts)), true_pack(texts))[1]
    )
    _, drawn = statically(model, prompts, config)
    assert read[-1] == [(5, 6, 7), (8, 9)]
    assert_same(drawn, plainly(model, prompts, config))


def test_long_prompts_are_read_in_parts(make, prompts, monkeypatch):
    monkeypatch.setattr(decoder, "_PREFILL_TOKENS", 20)
    model = make("llama").eval()
    config = SamplingConfig(max_new_tokens=8)
    _, drawn = statically(model, prompts, config)
    assert_same(drawn, plainly(model, prompts, config))


def test_values_are_noted_on_the_way(make, prompts):
    model = make("qwen2").eval()
    torch.manual_seed(5)
    head = torch.nn.Linear(48, 1)

    def value_head(states):
        return head(states).squeeze(-1)

    config = SamplingConfig(max_new_tokens=20)
    expected = plainly(model, prompts, config, value_head=value_head)
    assert expected[0].values is not None
    _, drawn = statically(model, prompts, config, value_head=value_head)
    assert_same(drawn, expected)


@pytest.mark.parametrize("role", ["default", "other", None])
def test_the_active_adapter_is_merged_in(make, with_adapters, prompts, role):
    model = with_adapters(make("qwen3")).eval()
    config = SamplingConfig(max_new_tokens=20)
    with using_adapter(model, role):
        _, drawn = statically(model, prompts, config)
        assert_same(drawn, plainly(model, prompts, config))


def test_a_decoder_goes_on_with_weights_that_have_moved(make, prompts):
    model, other = make("qwen2").eval(), make("qwen2", seed=1).eval()
    config = SamplingConfig(max_new_tokens=20)
    made, _ = statically(model, prompts, config)
    addresses = [t.data_ptr() for t in made.weights.snapshot.layers[0].tensors()]
    model.load_state_dict(other.state_dict())
    made.weights.refresh(model)
    assert [t.data_ptr() for t in made.weights.snapshot.layers[0].tensors()] == addresses
    drawn = draw(made, prompts, config)
    assert_same(drawn, plainly(other, prompts, config))


def test_fewer_rows_and_fewer_tokens_fit_into_a_decoder_that_is_there(make, prompts):
    model = make("qwen2").eval()
    made, _ = statically(model, prompts, SamplingConfig(max_new_tokens=40))
    few, config = prompts[:3], SamplingConfig(max_new_tokens=10)
    assert made.fits(3, 30, 10)
    assert not made.fits(3, 30, 41)
    assert not made.fits(20, 30, 10)
    assert not made.fits(3, 30, 10, torch.bfloat16)
    drawn = draw(made, few, config)
    assert_same(drawn, plainly(model, few, config))


def test_a_decoder_that_is_wrong_is_not_used(make, prompts, monkeypatch, caplog):
    model = make("qwen2").eval()
    monkeypatch.setattr(sampling.DecodeWeights, "__init__", spoiled(sampling.DecodeWeights))
    config = SamplingConfig(max_new_tokens=8)
    assert decoder_for(model, prompts, config) is None
    found = finding(FastPath.DECODING, CPU, "Qwen2ForCausalLM")
    assert not found.on
    assert "off by" in found.reason
    assert "decoding from a static cache: off for Qwen2ForCausalLM" in caplog.text
    # It is said once, and not tried again.
    caplog.clear()
    assert decoder_for(model, prompts, config) is None
    assert not caplog.text


def spoiled(cls):
    true_init = cls.__init__

    def init(self, model, dtype):
        true_init(self, model, dtype)
        self.snapshot.layers[1].down.plain[0].mul_(1.5)

    return init


def test_what_has_no_snapshot_has_no_static_decoder(prompts):
    from transformers import GPT2Config, GPT2LMHeadModel

    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=120, n_embd=32, n_layer=2, n_head=2)).eval()
    assert decoder_for(gpt2, prompts, SamplingConfig(max_new_tokens=8)) is None
    assert not finding(FastPath.DECODING, CPU, "GPT2LMHeadModel").on


def test_a_window_shorter_than_the_texts_is_decoded_plainly(make, prompts):
    model = make("mistral, short window").eval()
    assert decoder_for(model, prompts, SamplingConfig(max_new_tokens=8)) is None
    assert finding(FastPath.DECODING, CPU, "MistralForCausalLM") is None
    assert decoder_for(model, [[5]], SamplingConfig(max_new_tokens=4)) is not None
