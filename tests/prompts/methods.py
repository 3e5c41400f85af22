"""Every method once, small: what the contract and the methods' own tests go through."""

from jax_prompts.prompts import (
    MPT,
    Decomposed,
    Explosive,
    LSTMPrompt,
    PerLayer,
    PromptTuning,
    PTuningLSTM,
    PTuningMLP,
    RankProbe,
    Residual,
    SuperPos,
)

TABLE = {
    "prefix": PerLayer(length=4, width=48),
    "prefix_mlp": PerLayer(length=4, width=48, hidden=6),
    "decoder_prefix": PerLayer(length=4, width=48, kind="decoder_prefix"),
    "full_prefix": PerLayer(length=4, width=48, kind="full_prefix"),
    "decoder_deep": PerLayer(length=4, width=48, kind="decoder_deep"),
    "full_deep": PerLayer(length=4, width=48, kind="full_deep"),
    "deep": PerLayer(length=4, width=48, kind="deep"),
    "deep_mlp": PerLayer(length=4, width=48, kind="deep", hidden=6, activation="relu"),
    "prompt_tuning": PromptTuning(length=4),
    "residual": Residual(length=4, hidden=6),
    "residual_separate": Residual(length=4, hidden=6, shared=False),
    "residual_two_passes": Residual(length=4, hidden=6, passes=2),
    "mlp": Residual(length=4, hidden=6, skip=False, norm=False, bias=False, activation="gelu"),
    "lstm": LSTMPrompt(length=4),
    "lstm_with_embedding": LSTMPrompt(length=4, embedding=5),
    "lstm_with_head": LSTMPrompt(length=4, hidden=5, skip=True),
    "p_tuning_mlp": PTuningMLP(length=4),
    "p_tuning_lstm": PTuningLSTM(length=4, hidden=5),
    "decomposed": Decomposed(length=4, rank=2),
    "rank_probe": RankProbe(length=4),
    "explosive": Explosive(),
    "explosive_star": Explosive(length=4),
    "explosive_ablated": Explosive(
        length=4,
        vectors=2,
        hidden=3,
        passes=2,
        tied=False,
        activation="tanh",
        norm=True,
        skip=True,
        bias=True,
    ),
    "superpos": SuperPos(length=4, rows=3),
    "superpos_shared": SuperPos(length=4, rows=3, shared=True, softmax=True),
    "mpt": MPT(length=4),
    "mpt_rank_2": MPT(length=4, rank=2),
    "mpt_as_peft": MPT(length=4, factors="normal"),
}

# One of each kind; the others of the table differ in what is no matter of members.
KINDS = (
    "prefix", "full_deep", "prompt_tuning", "residual", "residual_separate", "lstm", "p_tuning_mlp", "decomposed",
    "explosive", "superpos", "mpt",
)  # fmt: skip
