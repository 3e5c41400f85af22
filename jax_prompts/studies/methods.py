"""What each gin file of prompts/ and tuned/ tunes on a T5, for studies and benchmarks, which read no gin."""

from __future__ import annotations

from collections.abc import Callable

from jax_prompts.prompts import (
    MPT,
    Decomposed,
    Explosive,
    LSTMPrompt,
    Method,
    PerLayer,
    PromptTuning,
    PTuningLSTM,
    PTuningMLP,
    RankProbe,
    Residual,
    SuperPos,
)
from jax_prompts.tuned import ATTEMPT, IA3, Adapter, ADePT, BitFit, DePT, LoRA, SMoP, TunedLeaves

# Prompts, of P virtual tokens.
PROMPTS: dict[str, Callable[[int], Method]] = {
    "prompt_tuning": lambda P: PromptTuning(P),
    "residual": lambda P: Residual(P, hidden=400),
    "residual_separate": lambda P: Residual(P, hidden=400, shared=False),
    "mlp": lambda P: Residual(P, hidden=400, skip=False),
    "lstm": lambda P: LSTMPrompt(P),
    "p_tuning_mlp": lambda P: PTuningMLP(P),
    "p_tuning_lstm": lambda P: PTuningLSTM(P),
    "decomposed": lambda P: Decomposed(P, rank=min(10, P)),
    "rank_probe": lambda P: RankProbe(P),
    "explosive": lambda P: Explosive(P),
    "superpos": lambda P: SuperPos(P),
    "mpt": lambda P: MPT(P),
    "prefix": lambda P: PerLayer(P, kind="prefix"),
    "prefix_mlp": lambda P: PerLayer(P, kind="prefix", hidden=512),
    "decoder_prefix": lambda P: PerLayer(P, kind="decoder_prefix"),
    "full_prefix": lambda P: PerLayer(P, kind="full_prefix"),
    "deep": lambda P: PerLayer(P, kind="deep"),
    "deep_mlp": lambda P: PerLayer(P, kind="deep", hidden=512),
    "decoder_deep": lambda P: PerLayer(P, kind="decoder_deep"),
    "full_deep": lambda P: PerLayer(P, kind="full_deep"),
}
# Leaves alone.
LEAVES: dict[str, TunedLeaves] = {
    "adapter": Adapter(),
    "adapter_drop": Adapter(first_layer=5),
    "bitfit": BitFit(),
    "lora": LoRA(),
    "ia3": IA3(),
}
# Leaves beside a plain prompt of P virtual tokens.
BESIDE_PROMPT: dict[str, Callable[[int], TunedLeaves]] = {
    "dept": lambda P: DePT(),
    "adept": lambda P: ADePT(),
    "attempt": lambda P: ATTEMPT(sources=("/dev/null/none",)),  # not there: what is tuned needs none
    "smop": lambda P: SMoP(P),
}
WITH_LENGTH = (*PROMPTS, *BESIDE_PROMPT)


def tuned_by(name: str, length: int) -> tuple[Method | None, tuple[TunedLeaves, ...]]:
    """The prompt and the leaves of a name of the tables above; `length`: P, which leaves alone do not read."""
    if name in LEAVES:
        return None, (LEAVES[name],)
    if name in PROMPTS:
        return PROMPTS[name](length), ()
    return PromptTuning(length), (BESIDE_PROMPT[name](length),)
