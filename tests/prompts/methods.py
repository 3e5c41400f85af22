"""Every method once, small: what the contract and the methods' own tests go through."""

from jax_prompts.prompts import (
    Decomposed,
    Explosive,
    LSTMPrompt,
    PerLayer,
    PromptTuning,
    PTuningLSTM,
    PTuningMLP,
    RankProbe,
    Residual,
)

TABLE = {
    "prefix": PerLayer(length=4, width=48),
    "prefix_mlp": PerLayer(length=4, width=48, hidden=6),
    "deep": PerLayer(length=4, width=48, kind="deep"),
    "deep_mlp": PerLayer(length=4, width=48, kind="deep", hidden=6, activation="relu"),
    "prompt_tuning": PromptTuning(length=4),
    "residual": Residual(length=4, hidden=6),
    "residual_separate": Residual(length=4, hidden=6, shared=False),
    "residual_two_passes": Residual(length=4, hidden=6, passes=2),
    "mlp": Residual(length=4, hidden=6, skip=False, norm=False, bias=False, activation="gelu"),
    "lstm": LSTMPrompt(length=4),
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
}
