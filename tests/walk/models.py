# SPDX-License-Identifier: Apache-2.0
"""Models as people bring them: each a factory for `edgefl convert module.py:factory`, with examples to learn.

This file is copied to a folder of its own, as a user's would be: it knows nothing of edgefl.
"""

from __future__ import annotations

from typing import Any

import numpy as np

CLASSES, WORDS, LENGTH = 3, 40, 8


def classifier() -> Any:
    """A Keras CNN with BatchNorm over images of 8 x 8."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(6, 3),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(CLASSES),
        ]
    )


def gru() -> Any:
    """A Keras GRU over words, which skips the padding word 0."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((LENGTH,), dtype="int32"),
            layers.Embedding(WORDS, 8, mask_zero=True),
            layers.GRU(12),
            layers.Dense(CLASSES),
        ]
    )


def bert() -> Any:
    """An ordinary BERT with a head, of tiny size and random weights, and an example of what it takes."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=WORDS, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=LENGTH, num_labels=CLASSES,
    )  # fmt: skip

    class Scores(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = BertForSequenceClassification(config)

        def forward(self, x: Any) -> Any:
            return self.bert(input_ids=x, attention_mask=(x > 0).to(torch.int64)).logits

    return Scores().eval(), np.ones((1, LENGTH), np.int64)


def images(seed: int, count: int) -> dict[str, np.ndarray]:
    """Bright left, bright right, or neither."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, count).astype(np.int32)
    x = rng.normal(0, 0.4, (count, 8, 8, 1)).astype(np.float32)
    x[y == 1, :, ::2] += 1
    x[y == 2] -= 0.8
    return {"x": x, "y": y}


def sentences(seed: int, count: int, dtype: str) -> dict[str, np.ndarray]:
    """Words of three topics, of several lengths; the topic is the label."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, count).astype(np.int32)
    x = (1 + 12 * y[:, None] + rng.integers(0, 12, (count, LENGTH))).astype(dtype)
    lengths = rng.integers(3, LENGTH + 1, count)
    x[np.arange(LENGTH) >= lengths[:, None]] = 0
    return {"x": x, "y": y}
