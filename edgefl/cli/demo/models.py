# SPDX-License-Identifier: Apache-2.0
"""The demo's model, written in Keras and again in PyTorch: a small 1-D CNN over windows of motion."""

from __future__ import annotations

from typing import Any

from edgefl.cli.demo.watch import CHANNELS, CLASSES, WINDOW
from edgefl.errors import MissingDependency, OptionError

SOURCES = ("keras", "torch")


def make_model(source: str, seed: int) -> Any:
    """The untrained model; raises MissingDependency without its framework."""
    if source not in SOURCES:
        raise OptionError(f"source is {source!r}, allowed {', '.join(SOURCES)}")
    return keras_model(seed) if source == "keras" else torch_model(seed)


def keras_model(seed: int) -> Any:
    """Takes `[N, 100, 6]`, gives logits `[N, 7]`."""
    from edgefl.converters.targets.quiet import quiet

    try:
        with quiet("absl", "tensorflow"):
            import keras
    except ImportError as exc:
        raise MissingDependency("tensorflow", "keras", "the Keras model of the demo") from exc
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((WINDOW, CHANNELS)),
            layers.Conv1D(32, 5, strides=2, activation="relu"),
            layers.MaxPooling1D(2),
            layers.Conv1D(64, 5, activation="relu"),
            layers.MaxPooling1D(2),
            layers.Conv1D(64, 3, activation="relu"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(CLASSES),
        ],
        name="watch",
    )


def torch_model(seed: int) -> Any:
    """The same layers with the same kind of initial values; takes `[N, 100, 6]`, gives logits `[N, 7]`."""
    try:
        import torch
    except ImportError as exc:
        raise MissingDependency("torch", "torch", "the PyTorch model of the demo") from exc
    torch.manual_seed(seed)
    nn = torch.nn

    class Watch(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv1d(CHANNELS, 32, 5, stride=2),
                nn.ReLU(),
                nn.MaxPool1d(2),
                nn.Conv1d(32, 64, 5),
                nn.ReLU(),
                nn.MaxPool1d(2),
                nn.Conv1d(64, 64, 3),
                nn.ReLU(),
            )
            self.head = nn.Linear(64, CLASSES)
            for layer in (*self.body, self.head):
                if hasattr(layer, "weight"):
                    # Keras' default initial values, so that both sources start alike.
                    nn.init.xavier_uniform_(layer.weight)
                    nn.init.zeros_(layer.bias)

        def forward(self, x: Any) -> Any:
            return self.head(self.body(x.transpose(1, 2)).mean(dim=2))

    return Watch()
