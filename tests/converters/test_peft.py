# SPDX-License-Identifier: Apache-2.0
"""LoRA factors in PEFT's files, read and written by PEFT itself: both compute the same."""

from __future__ import annotations

import copy
import functools
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import edgefl
from edgefl import Bundle, Trainer
from edgefl.converters.peft import CONFIG, TENSORS, export_peft, import_peft
from edgefl.errors import ConversionError
from edgefl.tensorfile import read_tensors, write_tensors

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import peft

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Could not find a config file"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`"),
]
rng = np.random.default_rng(0)
BATCH, LENGTH = 4, 6


class Words(nn.Module):
    """Everything that PEFT and edgefl both put factors beside, and a head that is trained in full."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.conv = nn.Embedding(9, 6), nn.Conv1d(6, 5, 3)
        self.image = nn.Conv2d(1, 4, (3, 2))
        self.body, self.head = nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        h = self.conv(self.table(x).transpose(1, 2)).tanh()
        h = self.image(h.unsqueeze(1)).mean(2).flatten(1)
        return self.head(self.body(nn.functional.pad(h, (0, 16 - h.shape[1]))).tanh())


IDS = rng.integers(0, 9, (BATCH, LENGTH)).astype(np.int64)


def words() -> Words:
    torch.manual_seed(0)
    return Words().eval()


def bert() -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    made = BertConfig(vocab_size=9, max_position_embeddings=8, num_labels=3, **sizes)
    return BertForSequenceClassification(made).eval()


@functools.cache
def converted(make: Any, trainable: str) -> Bundle:
    inputs = {"input_ids": IDS, "attention_mask": np.ones_like(IDS)} if make is bert else IDS
    return edgefl.convert(make(), inputs, trainable=trainable, batch_size=BATCH, targets=("onnx",))


def moved(bundle: Bundle) -> Bundle:
    """All that is trained away from where it begins."""
    values = bundle.parameters()
    noise = {
        p.name: values[p.name] + 0.2 * rng.standard_normal(p.shape).astype(np.float32)
        for p in bundle.manifest.trained
    }
    return bundle.with_parameters(noise, 2)


def predicted(bundle: Bundle) -> np.ndarray:
    names = [spec.name for spec in bundle.manifest.inputs]
    return Trainer(bundle, "numpy").predict(
        IDS if names == ["x"] else {"input_ids": IDS, "attention_mask": np.ones_like(IDS)}
    )


def logits(model: Any) -> np.ndarray:
    with torch.no_grad():
        made = model(torch.from_numpy(IDS))
    return (made if isinstance(made, torch.Tensor) else made.logits).numpy()


def randomised(model: Any) -> Any:
    """A PEFT model whose factors and whatever else it trains are away from where they begin."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn_like(parameter)
    return model.eval()


def close(one: np.ndarray, two: np.ndarray, base: np.ndarray) -> None:
    spread = np.abs(one - base).max()
    assert spread > 0.01
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4 * spread)


@pytest.mark.parametrize(
    ("make", "trainable"),
    [
        (words, "lora:rank=2:alpha=6"),
        (words, "lora:rank=2:alpha=3,head.*"),
        (words, "lora:rank=1:table*:image*,body.bias,image.bias,head.*"),
        (bert, "lora:rank=3:alpha=5:*query*:*value*:*word_embeddings*,classifier.*"),
    ],
)
def test_peft_computes_what_was_trained(make: Any, trainable: str, tmp_path: Path) -> None:
    base = logits(make())
    bundle = moved(converted(make, trainable))

    export_peft(bundle, tmp_path)

    found = logits(peft.PeftModel.from_pretrained(make(), str(tmp_path)).eval())
    close(predicted(bundle), found, base)
    again = import_peft(converted(make, trainable), tmp_path)
    close(predicted(bundle), predicted(again), base)


ADAPTERS = {
    "plain": {"r": 2, "lora_alpha": 6},
    "a smaller rank, and another scale": {"r": 1, "lora_alpha": 7, "use_rslora": True},
    "by patterns": {"r": 2, "lora_alpha": 6, "rank_pattern": {"body": 1}, "alpha_pattern": {"conv|bo.y": 9}},
    "some modules": {"r": 2, "target_modules": ["body", "image"]},
    "biases": {"r": 2, "bias": "all"},
    "a head in full": {"r": 2, "modules_to_save": ["head"]},
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_edgefl_computes_what_peft_trained(name: str, tmp_path: Path) -> None:
    options = {"target_modules": ["table", "conv", "image", "body"], **ADAPTERS[name]}
    base = logits(words())
    model = randomised(peft.get_peft_model(words(), peft.LoraConfig(**options)))
    expected = logits(model)
    model.save_pretrained(str(tmp_path))
    beside = {"biases": ",*.bias", "a head in full": ",head.*"}.get(name, "")
    bundle = converted(words, f"lora:rank=2:alpha=5:table*:conv*:image*:body*{beside}")

    close(predicted(import_peft(bundle, tmp_path)), expected, base)


def test_a_classifier_of_transformers(tmp_path: Path) -> None:
    config = peft.LoraConfig(
        task_type="SEQ_CLS", r=2, lora_alpha=4, target_modules=["query", "value", "word_embeddings"]
    )
    model = randomised(peft.get_peft_model(bert(), config))
    expected = logits(model)
    model.save_pretrained(str(tmp_path))
    bundle = converted(bert, "lora:rank=2:*query*:*value*:*word_embeddings*,classifier.*")

    close(predicted(import_peft(bundle, tmp_path)), expected, logits(bert()))


def test_a_wrapper_is_taken_off(tmp_path: Path) -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = words()

        def forward(self, x: Any) -> Any:
            return self.model(x)

    inputs = {"example_inputs": IDS, "trainable": "lora:rank=2", "batch_size": BATCH, "targets": ("onnx",)}
    bundle = moved(edgefl.convert(Wrapper(), **inputs))

    export_peft(bundle, tmp_path, prefix="model.")

    found = logits(peft.PeftModel.from_pretrained(words(), str(tmp_path)).eval())
    close(predicted(bundle), found, logits(words()))
    again = import_peft(edgefl.convert(Wrapper(), **inputs), tmp_path, prefix="model.")
    close(predicted(bundle), predicted(again), logits(words()))


def test_names_that_end_alike_are_told_apart(tmp_path: Path) -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.body = words(), nn.Linear(3, 3)

        def forward(self, x: Any) -> Any:
            return self.body(self.inner(x))

    torch.manual_seed(0)
    model = Nested().eval()
    bundle = moved(
        edgefl.convert(
            copy.deepcopy(model), IDS, trainable="lora:rank=2:body*", batch_size=BATCH, targets=("onnx",)
        )
    )

    config = export_peft(bundle, tmp_path)

    assert config["target_modules"] == "body"
    base = logits(model)
    found = peft.PeftModel.from_pretrained(model, str(tmp_path)).eval()
    assert [n for n, _ in found.named_modules() if n.endswith(".lora_A")] == ["base_model.model.body.lora_A"]
    close(predicted(bundle), logits(found), base)


# -- what does not fit


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return converted(words, "lora:rank=2:alpha=6:body*:conv*")


@pytest.fixture
def adapter(bundle: Bundle, tmp_path: Path) -> Path:
    export_peft(bundle, tmp_path)
    return tmp_path


def rewritten(adapter: Path, **changes: Any) -> None:
    config = json.loads((adapter / CONFIG).read_text())
    (adapter / CONFIG).write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "use_dora, which edgefl's LoRA has not"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights=pissa"),
        ({"peft_type": "LOHA"}, "not of peft_type LORA"),
    ],
)
def test_other_kinds_of_adapters_are_refused(
    bundle: Bundle, adapter: Path, changes: dict[str, Any], message: str
) -> None:
    rewritten(adapter, **changes)
    with pytest.raises(ConversionError, match=message):
        import_peft(bundle, adapter)


def test_everything_that_does_not_fit_is_listed(bundle: Bundle, adapter: Path) -> None:
    tensors = read_tensors((adapter / TENSORS).read_bytes())
    base = "base_model.model."
    tensors[f"{base}body.lora_A.weight"] = np.zeros((4, 16), np.float32)
    tensors[f"{base}body.lora_B.weight"] = np.zeros((8, 4), np.float32)
    del tensors[f"{base}conv.lora_B.weight"]
    tensors[f"{base}head.weight"] = np.ones((3, 8), np.float32)
    tensors[f"{base}other.lora_A.weight"] = np.ones((2, 8), np.float32)
    (adapter / TENSORS).write_bytes(write_tensors(tensors))

    with pytest.raises(ConversionError) as caught:
        import_peft(bundle, adapter)

    message = str(caught.value)
    assert "body: rank 4, the bundle has room for 2: convert with lora:rank=4" in message
    assert "conv: has one factor without the other" in message
    assert "head.weight: it is frozen in the bundle" in message
    assert "other.lora_A.weight: the bundle has no such parameter or factor" in message


@pytest.mark.parametrize(
    ("trainable", "message"),
    [
        ("all", "has no LoRA factors"),
        ("lora:rank=1:body*,conv.weight,lone", "is the model itself"),
    ],
)
def test_what_peft_has_no_place_for_is_refused(trainable: str, message: str, tmp_path: Path) -> None:
    class Lone(Words):
        def __init__(self) -> None:
            super().__init__()
            self.lone = nn.Parameter(torch.ones(3))

        def forward(self, x: Any) -> Any:
            return super().forward(x) * self.lone

    with pytest.raises(ConversionError, match=message):
        export_peft(converted(Lone, trainable), tmp_path)


def test_a_folder_that_is_no_adapter(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="is no PEFT adapter with adapter_config"):
        import_peft(bundle, tmp_path)
