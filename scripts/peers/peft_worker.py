"""PEFT's prompt tuning of a T5, driven by `peer.py`. Needs torch, transformers and peft, nothing of ours.

Rows are padded to the longest of their batch, as its Trainer does; a plain loop, which has less to do than Trainer.
"""

import json
import sys

import torch
from peft import PromptTuningConfig, TaskType, get_peft_model
from transformers import T5Config, T5ForConditionalGeneration
from worker import serve

SIZES = {  # width, hidden, heads, layers
    "small": (512, 1024, 6, 8),
    "base": (768, 2048, 12, 12),
    "large": (1024, 2816, 16, 24),
    "xl": (2048, 5120, 32, 24),
    "xxl": (4096, 10240, 64, 24),
}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def make(size, prompt, dropout, dtype, **_):
    width, hidden, heads, layers = SIZES[size.rsplit("_", 1)[-1]]
    config = T5Config(
        vocab_size=32128, d_model=width, d_ff=hidden, d_kv=64, num_heads=heads, num_layers=layers,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False, dropout_rate=dropout, decoder_start_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    base = T5ForConditionalGeneration(config).to(DEVICE, getattr(torch, dtype))
    settings = PromptTuningConfig(
        task_type=TaskType.SEQ_2_SEQ_LM, num_virtual_tokens=prompt, num_transformer_submodules=1
    )
    return base, get_peft_model(base, settings).to(DEVICE)


def padded(rows, value):
    length = max(map(len, rows))
    return torch.tensor([row + [value] * (length - len(row)) for row in rows], device=DEVICE)


def main():
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(settings["threads"])
    base, model = make(**settings)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.3)

    def step(texts, targets):
        model.train()
        ids = padded(texts, 0)
        optimizer.zero_grad()
        loss = model(input_ids=ids, attention_mask=(ids > 0).long(), labels=padded(targets, -100)).loss
        loss.backward()
        optimizer.step()
        return {"loss": loss.item()}  # which waits for the device, too

    def generate(texts, tokens):
        model.eval()
        ids = padded(texts, 0)
        with torch.no_grad():
            out = model.generate(
                input_ids=ids, attention_mask=(ids > 0).long(), max_new_tokens=tokens, do_sample=False
            )
        return {"ids": out[:, 1:].tolist()}

    def save(base_dir, prompt_file):
        base.save_pretrained(base_dir)
        import numpy as np

        np.save(prompt_file, model.get_prompt_embedding_to_save("default").float().cpu().numpy())
        return {}

    serve(step=step, generate=generate, save=save)


main()
