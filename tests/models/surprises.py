# SPDX-License-Identifier: Apache-2.0
"""Models nobody planned for: the frameworks' own collections, in their smallest sizes.

As in `zoo.py`, importing this module imports no framework.
"""

from __future__ import annotations

from typing import Any

from tests.models.zoo import (
    Entry,
    Field,
    classes,
    image,
    image_last,
    tokens,
    words,
)

_NEXT = {"loss": "next_token"}
_MSE = {"loss": "mean_squared_error"}


def _hidden(*shape: int) -> dict[str, Any]:
    """The first output is a tensor of features, fitted by least squares."""
    return {"label": Field(shape), **_MSE}


def application(name: str, size: int = 32, **options: Any) -> Entry:
    return Entry(
        f"keras-{name}", "keras", "convolution", "keras_models:application", image_last(size), classes(),
        options={"name": name, "size": size, **options},
    )  # fmt: skip


def transformers(name: str, family: str, inputs: Any, label: Field, *, loss: str = "", **more: Any) -> Entry:
    chosen: dict[str, Any] = {"loss": loss} if loss else {}
    factory = f"surprising_transformers:{name.replace('-', '_')}"
    return Entry(f"hf-{name}", "torch", family, factory, inputs, label, **chosen, **more)


def torch_layer(name: str, inputs: Any, label: Field, **more: Any) -> Entry:
    factory = f"surprising_layers:{name.replace('-', '_')}"
    return Entry(f"torch-{name}", "torch", "layer", factory, inputs, label, **more)


_SEQUENCE = {"sequence": Field((6, 8))}

ENTRIES = (
    application("DenseNet121"),
    application("EfficientNetB0"),
    application("EfficientNetV2B0"),
    application("ConvNeXtTiny"),
    application("InceptionV3", 75),
    application("InceptionResNetV2", 75),
    application("MobileNet", alpha=0.25),
    application("MobileNetV3Large", alpha=0.75, include_preprocessing=False),
    application("NASNetMobile"),
    application("ResNet50"),
    application("ResNet50V2"),
    application("VGG16"),
    application("Xception", 71),
    transformers("albert", "transformer", tokens(), classes()),
    transformers("roberta", "transformer", tokens(), classes()),
    transformers("electra", "transformer", tokens(), classes()),
    transformers("deberta-v2", "transformer", tokens(), classes()),
    transformers("mpnet", "transformer", tokens(), classes()),
    transformers("squeezebert", "transformer", tokens(), classes()),
    transformers("funnel", "transformer", tokens(), classes()),
    transformers("xlnet", "transformer", tokens(), classes()),
    transformers("modernbert", "transformer", tokens(), classes()),
    transformers("t5-encoder", "transformer", tokens(), **_hidden(12, 16)),
    transformers("mistral", "transformer", tokens(), words(), **_NEXT),
    transformers("qwen2", "transformer", tokens(), words(), **_NEXT),
    transformers("qwen3", "transformer", tokens(), words(), **_NEXT),
    transformers("phi", "transformer", tokens(), words(), **_NEXT),
    transformers("phi3", "transformer", tokens(), words(), **_NEXT),
    transformers("gemma", "transformer", tokens(), words(), **_NEXT),
    transformers("gemma2", "transformer", tokens(), words(), **_NEXT),
    transformers("gpt-neox", "transformer", tokens(), words(), **_NEXT),
    transformers("gptj", "transformer", tokens(), words(), **_NEXT),
    transformers("opt", "transformer", tokens(), words(), **_NEXT),
    transformers("bloom", "transformer", tokens(), words(), **_NEXT),
    transformers("falcon", "transformer", tokens(), words(), **_NEXT),
    transformers("mixtral", "transformer", tokens(), words(), **_NEXT),
    transformers("mixtral-batched", "transformer", tokens(), words(), **_NEXT),
    transformers("mamba", "transformer", tokens(), words(), **_NEXT),
    transformers("mamba2", "transformer", tokens(), words(), **_NEXT),
    transformers("rwkv", "transformer", tokens(), words(), **_NEXT),
    transformers("levit", "transformer", image(64), classes()),
    transformers("deit", "transformer", image(32), classes()),
    transformers("beit", "transformer", image(32), classes()),
    transformers("dinov2", "transformer", image(28), classes()),
    transformers("swinv2", "transformer", image(32), classes()),
    transformers("pvt", "transformer", image(64), classes()),
    transformers("pvt-v2", "transformer", image(64), classes()),
    transformers("cvt", "transformer", image(64), classes()),
    transformers("mobilevitv2", "transformer", image(64), classes()),
    transformers("swiftformer", "transformer", image(64), classes()),
    transformers("poolformer", "convolution", image(64), classes()),
    transformers("regnet", "convolution", image(32), classes()),
    transformers("mobilenet-v1", "convolution", image(32), classes()),
    transformers("convnextv2", "convolution", image(32), classes()),
    transformers("focalnet", "convolution", image(32), classes()),
    transformers("bit", "convolution", image(32), classes()),
    transformers("segformer", "dense-prediction", image(64), **_hidden(5, 16, 16)),
    transformers("dpt", "dense-prediction", image(32), **_hidden(64, 64)),
    transformers("data2vec-text", "transformer", tokens(), classes()),
    transformers("wav2vec2", "audio", {"input_values": Field((800,))}, classes()),
    transformers("hubert", "audio", {"input_values": Field((800,))}, classes()),
    transformers("wav2vec2-conformer", "audio", {"input_values": Field((800,))}, classes()),
    transformers("whisper-encoder", "audio", {"input_features": Field((8, 32))}, **_hidden(16, 16)),
    transformers("audio-spectrogram", "audio", {"input_values": Field((32, 16))}, classes()),
    transformers("patchtst", "time-series", {"past_values": Field((32, 3))}, **_hidden(4, 3)),
    transformers("patchtsmixer", "time-series", {"past_values": Field((32, 3))}, **_hidden(4, 3)),
    transformers("bart", "transformer", tokens(), classes()),
    torch_layer("transformer", {"source": Field((6, 8)), "target": Field((5, 8))}, Field((5, 8)), **_MSE),
    torch_layer("transformer-decoder", _SEQUENCE, Field((6, 8)), **_MSE),
    torch_layer("multihead-attention", _SEQUENCE, Field((6, 8)), **_MSE),
    torch_layer("bidirectional-lstm", _SEQUENCE, Field((6, 10)), **_MSE),
    torch_layer("bidirectional-gru", _SEQUENCE, Field((6, 10)), **_MSE),
    torch_layer("projected-lstm", _SEQUENCE, Field((6, 3)), **_MSE),
    torch_layer("recurrent-cell", _SEQUENCE, Field((7,)), **_MSE),
    torch_layer("conv3d", {"clip": Field((2, 4, 8, 8))}, classes()),
    torch_layer("embedding-bag", tokens(), classes()),
    torch_layer("pixel-shuffle", image(16), Field((3, 32, 32)), **_MSE),
    torch_layer("spectral-norm", {"x": Field((8,))}, classes()),
    torch_layer("bilinear", {"left": Field((5,)), "right": Field((4,))}, classes()),
    torch_layer("mixture", {"x": Field((8,))}, classes()),
    torch_layer("adaptive-pool", image(20), classes()),
    torch_layer("grid-sample", image(16), Field((3, 16, 16)), **_MSE),
    torch_layer("fourier", {"x": Field((16,))}, classes()),
)

BY_NAME = {entry.name: entry for entry in ENTRIES}

REFUSED = {
    "hf-bloom": "GeLUFunction is a torch.autograd.Function with a gradient of its own",
    "hf-mixtral": "grouped_mm_fallback has no ONNX counterpart; for experts",
    "hf-bart": "NonZero .* depends on the data",
    "torch-projected-lstm": "proj_size=3",
    "torch-conv3d": "3 spatial axes; 1-D and 2-D are supported",
    "torch-embedding-bag": "node Loop .* control flow",
    "torch-adaptive-pool": "adaptive_max_pool2d has no ONNX counterpart; use a pool",
    "torch-grid-sample": "does not cover node GridSample",
    "torch-fourier": "does not cover node DFT",
}
"""What is refused, and how the message reads."""
