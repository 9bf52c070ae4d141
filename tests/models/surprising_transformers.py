# SPDX-License-Identifier: Apache-2.0
"""Architectures of `transformers` outside the promised list, made from small configurations."""

from __future__ import annotations

from typing import Any

from torch import nn

from tests.models.transformer_models import classifier, make

_CLASS = "ForSequenceClassification"
_TEXT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
         "vocab_size": 40, "max_position_embeddings": 32, "num_labels": 5, "pad_token_id": 0}  # fmt: skip
_DECODER = {**_TEXT, "use_cache": False, "bos_token_id": 1, "eos_token_id": 2}
_GROUPED = {**_DECODER, "num_key_value_heads": 1, "head_dim": 8}
_VISION = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
_AUDIO = {**_VISION, "num_labels": 5, "conv_dim": (8, 8), "conv_stride": (5, 4), "conv_kernel": (10, 4),
          "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
          "classifier_proj_size": 8, "vocab_size": 12, "mask_time_prob": 0.0}  # fmt: skip


def albert() -> Any:
    return make("Albert", _CLASS, **_TEXT, embedding_size=8)


def roberta() -> Any:
    return make("Roberta", _CLASS, **_TEXT)


def electra() -> Any:
    return make("Electra", _CLASS, **_TEXT, embedding_size=8)


def deberta_v2() -> Any:
    more = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8}
    return make("DebertaV2", _CLASS, **_TEXT, **more)


def mpnet() -> Any:
    return make("MPNet", _CLASS, **_TEXT)


def squeezebert() -> Any:
    return make("SqueezeBert", _CLASS, **_TEXT, embedding_size=16)


def funnel() -> Any:
    sizes = {"d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 24, "block_sizes": [1, 1], "vocab_size": 40}
    return make("Funnel", _CLASS, **sizes, num_decoder_layers=1, num_labels=5)


def xlnet() -> Any:
    sizes = {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 24, "vocab_size": 40, "num_labels": 5}
    return make("XLNet", _CLASS, **sizes)


def modernbert() -> Any:
    tokens = dict.fromkeys(("cls_token_id", "sep_token_id", "bos_token_id", "eos_token_id"), 0)
    return make("ModernBert", _CLASS, **_TEXT, **tokens, local_attention=4, global_attn_every_n_layers=2)


def t5_encoder() -> Any:
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "vocab_size": 40}
    return make("T5", "EncoderModel", **sizes)


def mistral() -> Any:
    return make("Mistral", "ForCausalLM", **_GROUPED, sliding_window=4)


def qwen2() -> Any:
    return make("Qwen2", "ForCausalLM", **_DECODER, num_key_value_heads=1)


def qwen3() -> Any:
    return make("Qwen3", "ForCausalLM", **_GROUPED)


def phi() -> Any:
    return make("Phi", "ForCausalLM", **_DECODER)


def phi3() -> Any:
    return make("Phi3", "ForCausalLM", **_DECODER, num_key_value_heads=1)


def gemma() -> Any:
    return make("Gemma", "ForCausalLM", **_GROUPED)


def gemma2() -> Any:
    return make("Gemma2", "ForCausalLM", **_GROUPED, sliding_window=4)


def gpt_neox() -> Any:
    return make("GPTNeoX", "ForCausalLM", **_DECODER)


def gptj() -> Any:
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "rotary_dim": 4, "vocab_size": 40, "n_positions": 32}
    return make("GPTJ", "ForCausalLM", **sizes, use_cache=False)


def opt() -> Any:
    return make("OPT", "ForCausalLM", **_DECODER, ffn_dim=24, word_embed_proj_dim=16)


def bloom() -> Any:
    return make("Bloom", "ForCausalLM", hidden_size=16, n_layer=2, n_head=2, vocab_size=40, use_cache=False)


def falcon() -> Any:
    return make("Falcon", "ForCausalLM", **_DECODER, alibi=False)


def mixtral() -> Any:
    return make("Mixtral", "ForCausalLM", **_GROUPED, num_local_experts=3, num_experts_per_tok=2)


def mixtral_batched() -> Any:
    """What the refusal of Mixtral recommends."""
    model = mixtral()
    model.config._experts_implementation = "batched_mm"
    return model


def mamba() -> Any:
    sizes = {"hidden_size": 16, "state_size": 4, "num_hidden_layers": 1, "vocab_size": 40}
    return make("Mamba", "ForCausalLM", **sizes, use_cache=False)


def mamba2() -> Any:
    sizes = {"hidden_size": 16, "state_size": 4, "num_hidden_layers": 1, "vocab_size": 40, "num_heads": 4}
    more = {"head_dim": 8, "n_groups": 1, "chunk_size": 4, "use_cache": False}
    return make("Mamba2", "ForCausalLM", **sizes, **more)


def rwkv() -> Any:
    sizes = {"hidden_size": 16, "attention_hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 40}
    return make("Rwkv", "ForCausalLM", **sizes, context_length=32, use_cache=False)


def levit() -> Any:
    sizes = {"hidden_sizes": [16, 20, 24], "num_attention_heads": [2, 2, 2], "depths": [1, 1, 1]}
    return classifier("Levit", image_size=64, **sizes, key_dim=[4, 4, 4])


def deit() -> Any:
    return classifier("DeiT", patch_size=8, **_VISION)


def beit() -> Any:
    return classifier("Beit", patch_size=8, **_VISION, use_relative_position_bias=True)


def dinov2() -> Any:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    return classifier("Dinov2", image_size=28, patch_size=7, **sizes)


def swinv2() -> Any:
    return classifier("Swinv2", patch_size=2, embed_dim=8, depths=[2, 2], num_heads=[2, 4], window_size=4)


def pvt() -> Any:
    sizes = {"hidden_sizes": [8, 8, 12, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 2]}
    return classifier("Pvt", image_size=64, **sizes, mlp_ratios=[2, 2, 2, 2])


def pvt_v2() -> Any:
    sizes = {"hidden_sizes": [8, 8, 12, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 2]}
    return classifier("PvtV2", image_size=64, **sizes, mlp_ratios=[2, 2, 2, 2])


def cvt() -> Any:
    return classifier("Cvt", embed_dim=[8, 12, 16], num_heads=[1, 2, 2], depth=[1, 2, 3])


def mobilevitv2() -> Any:
    return classifier("MobileViTV2", image_size=64, width_multiplier=0.25, n_attn_blocks=[1, 1, 1])


def swiftformer() -> Any:
    return classifier("SwiftFormer", image_size=64, depths=[1, 1, 1, 1], embed_dims=[8, 8, 12, 16])


def poolformer() -> Any:
    return classifier("PoolFormer", hidden_sizes=[8, 8, 12, 16], depths=[1, 1, 1, 1])


def regnet() -> Any:
    return classifier(
        "RegNet", embedding_size=8, hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 2, 1], groups_width=4
    )


def mobilenet_v1() -> Any:
    return classifier("MobileNetV1", depth_multiplier=0.25)


def convnextv2() -> Any:
    return classifier("ConvNextV2", hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1], num_stages=4)


def focalnet() -> Any:
    return classifier(
        "FocalNet", patch_size=4, embed_dim=8, depths=[1, 1], focal_levels=[2, 2], focal_windows=[3, 3]
    )


def bit() -> Any:
    return classifier("Bit", embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1], num_groups=4)


def segformer() -> Any:
    sizes = {"hidden_sizes": [8, 8, 12, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 2]}
    more = {"mlp_ratios": [2, 2, 2, 2], "decoder_hidden_size": 8, "num_labels": 5}
    return make("Segformer", "ForSemanticSegmentation", **sizes, **more)


def dpt() -> Any:
    sizes = {"image_size": 32, "patch_size": 8, "neck_hidden_sizes": [8, 8, 12, 12], "fusion_hidden_size": 8}
    more = {"num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3]}
    return make("DPT", "ForDepthEstimation", **{**_VISION, **more}, **sizes)


def data2vec_text() -> Any:
    return make("Data2VecText", _CLASS, **_TEXT)


def wav2vec2() -> Any:
    return make("Wav2Vec2", _CLASS, **_AUDIO)


def hubert() -> Any:
    return make("Hubert", _CLASS, **_AUDIO)


def wav2vec2_conformer() -> Any:
    return make("Wav2Vec2Conformer", _CLASS, **_AUDIO)


class WhisperEncoder(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = model.encoder

    def forward(self, input_features: Any) -> Any:
        return self.encoder(input_features).last_hidden_state


def whisper_encoder() -> Any:
    sizes = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "num_mel_bins": 8, "vocab_size": 40}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    more = {"max_source_positions": 16, "max_target_positions": 8, "decoder_ffn_dim": 24}
    return WhisperEncoder(make("Whisper", "Model", **sizes, **heads, **tokens, **more))


def audio_spectrogram() -> Any:
    sizes = {"num_mel_bins": 16, "max_length": 32, "patch_size": 8, "frequency_stride": 8, "time_stride": 8}
    return make("AST", "ForAudioClassification", **_VISION, **sizes, num_labels=5)


def patchtst() -> Any:
    sizes = {"num_input_channels": 3, "context_length": 32, "patch_length": 8, "patch_stride": 8}
    more = {"d_model": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 24, "loss": "mse"}
    return make("PatchTST", "ForPrediction", **sizes, **more, prediction_length=4)


def patchtsmixer() -> Any:
    sizes = {"num_input_channels": 3, "context_length": 32, "patch_length": 8, "patch_stride": 8}
    return make("PatchTSMixer", "ForPrediction", **sizes, d_model=8, num_layers=2, prediction_length=4)


def bart() -> Any:
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 40, "num_labels": 5}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24}
    more = {"decoder_ffn_dim": 24, "max_position_embeddings": 32, "use_cache": False}
    return make("Bart", _CLASS, **sizes, **heads, **more)
