"""What upstream's two T5 networks have in common with a prompt in front of the encoder's input.

A row of T tokens becomes one of P + T ids. The first P stand for the prompt: no mask takes them for padding, and the
encoder's input layer puts the prompt where they are, before its dropout. All else is upstream's.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jax_prompts.errors import ConfigError
from jax_prompts.prompts import Method, prompt_kind_of
from jax_prompts.upstream.parameters import Prompt
from jax_prompts.upstream.start import Start

_ANY_TOKEN = 1  # what T5X's masks tell from padding, 0


class InputLayer(nn.Module):
    """The prompt, and behind it the embeddings of a row's tokens: what upstream's encoder calls its embedding.

    Attributes:
      embed: upstream's token embedding.
      prompt: makes [P, D] of D.
    """

    embed: Any
    prompt: Any

    def __call__(self, ids_BL: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        prompt_PD = self.prompt(self.embed.features)
        x_BTD = self.embed(ids_BL[:, len(prompt_PD) :]).astype(jnp.float32)  # large rows keep their digits
        prompt_BPD = jnp.broadcast_to(prompt_PD[None], (len(ids_BL), *prompt_PD.shape))
        return jnp.concatenate([prompt_BPD, x_BTD], axis=1)


class Prompted(nn.Module):
    """Stands before a network of upstream's in a class's bases; that class's `setup` puts `InputLayer` in.

    Attributes:
      method: makes the prompt.
      start: where it starts.
      tuned: what would be tuned inside the model: None, or refused.
      members, sweep: how many prompts, and of which settings: one, or refused.

    Raises:
      ConfigError: a method that is none, or of which more than a prompt at the encoder's input is needed; several
        prompts; packed rows.
    """

    method: Any = None
    start: Start | None = None
    tuned: Any = None
    members: Any = 1
    sweep: Any = None

    def __post_init__(self) -> None:
        check_carried(self.method, self.tuned, self.members, self.sweep)
        super().__post_init__()

    def encode(
        self,
        encoder_input_tokens: Int[Array, "B T"],
        encoder_segment_ids: Int[Array, "B T"] | None = None,
        enable_dropout: bool = True,
    ) -> Float[Array, "B L D"]:
        """What upstream's encoder makes of the prompt and a row's tokens."""
        check_not_packed(encoder_segment_ids)
        ids_BL = _behind(self.method.length, encoder_input_tokens)
        return super().encode(ids_BL, enable_dropout=enable_dropout)

    def decode(
        self,
        encoded: Float[Array, "B L D"],
        encoder_input_tokens: Int[Array, "B T"],
        decoder_input_tokens: Int[Array, "B U"],
        decoder_target_tokens: Int[Array, "B U"],
        encoder_segment_ids: Int[Array, "B T"] | None = None,
        **decoding: Any,
    ) -> Float[Array, "B U V"]:
        """Upstream's logits, of a decoder that sees the prompt as part of the encoded row."""
        check_not_packed(encoder_segment_ids)
        ids_BL = _behind(self.method.length, encoder_input_tokens)
        return super().decode(encoded, ids_BL, decoder_input_tokens, decoder_target_tokens, **decoding)


def set_up(transformer: Any, layers: ModuleType, network: ModuleType) -> None:
    """The `setup` of a `Prompted` network: that of upstream's, with `InputLayer` as what the encoder embeds with.

    Args:
      transformer: the module.
      layers, network: modules of `t5x.examples.t5` or `scalable_t5`.
    """
    config = transformer.config
    transformer.shared_embedding = layers.Embed(
        num_embeddings=config.vocab_size,
        features=config.emb_dim,
        dtype=config.dtype,
        attend_dtype=jnp.float32,
        one_hot=True,
        name="token_embedder",
    )
    transformer.prompt = Prompt(transformer.method, transformer.start)
    transformer.input_layer = InputLayer(transformer.shared_embedding, transformer.prompt)
    transformer.encoder = network.Encoder(config=config, shared_embedding=transformer.input_layer)
    transformer.decoder = network.Decoder(config=config, shared_embedding=transformer.shared_embedding)


def check_carried(method: Any, tuned: Any, members: Any = 1, sweep: Any = None) -> None:
    """Raises ConfigError unless all that is tuned is one prompt in front of the encoder's input."""
    if not isinstance(method, Method):
        raise ConfigError(
            f"PROMPT is {method!r}: load a method after the input layer, such as "
            "--gin_file=gin_configs/prompts/residual.gin"
        )
    check_kind(f"PROMPT {type(method).__name__}", prompt_kind_of(method))
    if tuned is not None and tuned != ():
        names = ", ".join(
            type(kind).__name__ for kind in (tuned if isinstance(tuned, tuple | list) else [tuned])
        )
        raise ConfigError(
            f"TUNED is {names}, which is more than a prompt: inside upstream T5X nothing else is tuned; use t5x train "
            "of jax_prompts, or set TUNED = None"
        )
    if members != 1 or sweep:
        what = f"SWEEP is {sweep!r}" if sweep else f"MEMBERS is {members!r}"
        raise ConfigError(
            f"{what}: inside upstream T5X a run tunes one prompt; use t5x train of jax_prompts, or a run for each"
        )


def check_kind(what: str, kind: str) -> None:
    """Raises ConfigError unless what is called so is a prompt in front of the encoder's input."""
    if kind != "input":
        raise ConfigError(
            f"{what} is of kind {kind!r}: inside upstream T5X prompts stand in front of the encoder's input alone; "
            "use the command t5x of jax_prompts, or another method"
        )


def check_not_packed(segment_ids: Any) -> None:
    """Raises ConfigError for rows of several examples, of which only the first would see a prompt."""
    if segment_ids is not None:
        raise ConfigError(
            "T5X packs several examples into a row, which has one prompt: set train/utils.DatasetConfig.pack = False "
            "and train_eval/utils.DatasetConfig.pack = False"
        )


def _behind(length: int, ids_BT: Int[Array, "B T"]) -> Int[Array, "B L"]:
    return jnp.pad(ids_BT, ((0, 0), (length, 0)), constant_values=_ANY_TOKEN)
