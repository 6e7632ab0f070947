"""Peer of the speed benchmarks: transformers' ELECTRA pair trained on PyTorch, as its users write it.

Same rows, sizes, masking (15 % of the tokens, without replacement, 85 % of them [MASK]), gathered generator head, exact
sample, losses, clipping and Adam as ours; embeddings shared. Two choices favor it: attention sees the padding mask
alone, not the documents of a packed row (so that fused attention needs no mask where rows are full), and its batch is
on the device already.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import torch
import transformers

from electramed_jax.config.pretrain import Config, EncoderConfig


def _hf_config(config: Config, sizes: EncoderConfig, attention: str) -> transformers.ElectraConfig:
    model = config.model
    return transformers.ElectraConfig(
        vocab_size=model.vocab_size,
        embedding_size=model.embedding_size,
        hidden_size=sizes.hidden_size,
        num_hidden_layers=sizes.num_layers,
        num_attention_heads=sizes.num_heads,
        intermediate_size=sizes.intermediate_size,
        max_position_embeddings=model.max_positions,
        hidden_dropout_prob=model.dropout,
        attention_probs_dropout_prob=model.attention_dropout,
        layer_norm_eps=1e-12,
        attn_implementation=attention,
    )


class Pair(torch.nn.Module):
    """Generator and discriminator. Maps rows int64[B, T] to the loss."""

    def __init__(self, config: Config, attention: str):
        super().__init__()
        self.config = config
        self.generator = transformers.ElectraForMaskedLM(_hf_config(config, config.model.generator, attention))
        self.discriminator = transformers.ElectraForPreTraining(
            _hf_config(config, config.model.discriminator, attention)
        )
        self.discriminator.electra.embeddings = self.generator.electra.embeddings
        self.generator.generator_lm_head.weight = self.generator.electra.embeddings.word_embeddings.weight

    def forward(self, ids_BT: torch.Tensor) -> torch.Tensor:
        special, p, M = self.config.data.special, self.config.objective.mask_probability, self.config.max_predictions
        token_BT = ids_BT != special.pad
        maskable_BT = token_BT & (ids_BT != special.cls) & (ids_BT != special.sep)
        scores_BT = torch.where(maskable_BT, torch.rand(ids_BT.shape, device=ids_BT.device), -1.0)
        best_BM, at_BM = scores_BT.topk(M, dim=1)
        wanted_B1 = (token_BT.sum(1, keepdim=True) * p).round().clamp(1, M)
        used_BM = (torch.arange(M, device=ids_BT.device) < wanted_B1) & (best_BM >= 0)
        target_BM = ids_BT.gather(1, at_BM)
        put_BM = torch.where(used_BM & (torch.rand(at_BM.shape, device=ids_BT.device) < 0.85), special.mask, target_BM)
        mask_BT = token_BT.long()
        h_BTD = self.generator.electra(ids_BT.scatter(1, at_BM, put_BM), attention_mask=mask_BT).last_hidden_state
        h_BMD = h_BTD.gather(1, at_BM[..., None].expand(-1, -1, h_BTD.shape[-1]))
        logits_BMV = self.generator.generator_lm_head(self.generator.generator_predictions(h_BMD)).float()
        nll_BM = torch.nn.functional.cross_entropy(logits_BMV.flatten(0, 1), target_BM.flatten(), reduction="none")
        loss = (nll_BM * used_BM.flatten()).sum() / used_BM.sum()
        with torch.no_grad():
            sampled_BM = torch.multinomial(logits_BMV.flatten(0, 1).softmax(-1), 1).view(at_BM.shape)
            corrupted_BT = ids_BT.scatter(1, at_BM, torch.where(used_BM, sampled_BM, target_BM))
            replaced_BT = (corrupted_BT != ids_BT).float()
        logits_BT = self.discriminator(corrupted_BT, attention_mask=mask_BT).logits.float()
        rtd_BT = torch.nn.functional.binary_cross_entropy_with_logits(logits_BT, replaced_BT, reduction="none")
        return loss + 50.0 * (rtd_BT * token_BT).sum() / token_BT.sum()


def stepper(
    config: Config,
    rows: np.ndarray,
    *,
    device: str,
    attention: str = "sdpa",
    bfloat16: bool = False,
    compiled: bool = False,
) -> Callable[[], torch.Tensor]:
    """Returns a function that starts one training step and returns its loss; float() of the loss blocks."""
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high" if device == "cuda" else "highest")
    pair = Pair(config, attention).to(device).train()
    # dynamic=False: otherwise a second size of the same code makes torch compile for varying sizes.
    forward = torch.compile(pair, dynamic=False) if compiled else pair
    chosen = torch.optim.AdamW(pair.parameters(), lr=1e-4, eps=1e-6, weight_decay=0.01, fused=True)
    ids_BT = torch.from_numpy(np.asarray(rows, np.int64)).to(device)

    def step() -> torch.Tensor:
        cast = torch.autocast(device, dtype=torch.bfloat16) if bfloat16 else contextlib.nullcontext()
        with cast:
            loss = forward(ids_BT)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(pair.parameters(), 1.0)
        chosen.step()
        chosen.zero_grad(set_to_none=True)
        return loss.detach()

    return step
