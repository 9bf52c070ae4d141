# SPDX-License-Identifier: Apache-2.0
"""Models of Hugging Face's `transformers`, made from small configurations; nothing is downloaded."""

from __future__ import annotations

from typing import Any

import transformers

_TEXT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
         "vocab_size": 40, "max_position_embeddings": 32, "num_labels": 5, "pad_token_id": 0}  # fmt: skip
_DECODER = {**_TEXT, "use_cache": False, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False}


def make(family: str, head: str, **config: Any) -> Any:
    """`<family>For<head>` of `<family>Config`, with attention written out rather than fused."""
    made = getattr(transformers, f"{family}Config")(**config)
    made._attn_implementation = "eager"
    return getattr(transformers, f"{family}{head}")(made)


def classifier(family: str, **config: Any) -> Any:
    return make(family, "ForImageClassification", **{"image_size": 32, "num_labels": 5, **config})


def resnet_18() -> Any:
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 12, 16, 20], "depths": [2, 2, 2, 2]}
    return classifier("ResNet", layer_type="basic", **sizes)


def mobilenet_v2_torch() -> Any:
    return classifier("MobileNetV2", depth_multiplier=0.25, min_depth=4, depth_divisible_by=4)


def efficientnet_b0() -> Any:
    sizes = {"width_coefficient": 0.25, "depth_coefficient": 1.0, "depth_divisor": 4, "hidden_dim": 320}
    return classifier("EfficientNet", **sizes)


def convnext() -> Any:
    return classifier("ConvNext", hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 2, 1], num_stages=4)


def mobilevit() -> Any:
    sizes = {"hidden_sizes": [12, 16, 20], "neck_hidden_sizes": [4, 8, 8, 12, 12, 16, 24]}
    return classifier("MobileViT", num_attention_heads=2, mlp_ratio=2.0, patch_size=2, **sizes)


def vit() -> Any:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return classifier("ViT", patch_size=8, **sizes)


def swin() -> Any:
    return classifier("Swin", patch_size=2, embed_dim=8, depths=[2, 2], num_heads=[2, 4], window_size=4)


def bert() -> Any:
    return make("Bert", "ForSequenceClassification", **_TEXT)


def distilbert() -> Any:
    sizes = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "vocab_size": 40}
    more = {"max_position_embeddings": 32, "num_labels": 5}
    return make("DistilBert", "ForSequenceClassification", **sizes, **more)


def gpt2() -> Any:
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 40, "n_positions": 32}
    return make("GPT2", "LMHeadModel", **sizes, use_cache=False, bos_token_id=1, eos_token_id=2)


def llama() -> Any:
    return make("Llama", "ForCausalLM", **_DECODER, num_key_value_heads=1)
