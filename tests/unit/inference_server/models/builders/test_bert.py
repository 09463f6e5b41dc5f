"""Any BERT checkpoint becomes a model that computes what the paper says."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from inference_server.errors import ConfigurationError
from inference_server.models.builders.bert import build_from_checkpoint

HIDDEN, HEADS, LAYERS, WIDE, WORDS, POSITIONS = 12, 3, 2, 20, 30, 16
IDS = np.array([[2, 5, 9, 3, 0, 0], [2, 7, 3, 0, 0, 0], [2, 11, 12, 13, 14, 3]], np.int64)
MASK = (IDS > 0).astype(np.int64)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    write_checkpoint(folder)
    return folder


def write_checkpoint(folder: Path, *, prefix: str = "", pooling: str = "mean", **changes: object) -> None:
    random = np.random.default_rng(7)
    shapes = {
        "embeddings.word_embeddings.weight": (WORDS, HIDDEN),
        "embeddings.position_embeddings.weight": (POSITIONS, HIDDEN),
        "embeddings.token_type_embeddings.weight": (2, HIDDEN),
        **{f"embeddings.LayerNorm.{kind}": (HIDDEN,) for kind in ("weight", "bias")},
    }
    for layer in range(LAYERS):
        start = f"encoder.layer.{layer}"
        dense = {
            **{f"attention.self.{part}": (HIDDEN, HIDDEN) for part in ("query", "key", "value")},
            "attention.output.dense": (HIDDEN, HIDDEN),
            "intermediate.dense": (WIDE, HIDDEN),
            "output.dense": (HIDDEN, WIDE),
        }
        for name, shape in dense.items():
            shapes |= {f"{start}.{name}.weight": shape, f"{start}.{name}.bias": shape[:1]}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{start}.{name}.weight": (HIDDEN,), f"{start}.{name}.bias": (HIDDEN,)}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {prefix + name: random.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}, folder / "model.safetensors"
    )
    config = {
        "model_type": "bert",
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "max_position_embeddings": POSITIONS,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
    }
    (folder / "config.json").write_text(json.dumps(config | changes))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": pooling == "cls"}))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hemoglobin", "glucose", *(f"word{number}" for number in range(WORDS - 7))]
    (folder / "vocab.txt").write_text("\n".join(words))


def reference(folder: Path, ids: np.ndarray, mask: np.ndarray, *, pooling: str = "mean") -> np.ndarray:
    """The encoder in plain numpy, in double precision, one text at a time and without padding."""
    weights = {name: tensor.astype(np.float64) for name, tensor in load_file(folder / "model.safetensors").items()}

    def dense(name: str, value: np.ndarray) -> np.ndarray:
        return value @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, value: np.ndarray) -> np.ndarray:
        centred = value - value.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    rows = []
    for row, kept in zip(ids, mask, strict=True):
        tokens = row[kept == 1]
        summed = weights["embeddings.word_embeddings.weight"][tokens] + weights["embeddings.position_embeddings.weight"][: len(tokens)]
        hidden = norm("embeddings.LayerNorm", summed + weights["embeddings.token_type_embeddings.weight"][0])
        for layer in range(LAYERS):
            start = f"encoder.layer.{layer}"
            query, key, value = (dense(f"{start}.attention.self.{part}", hidden) for part in ("query", "key", "value"))
            heads = []
            for head in range(HEADS):
                cut = slice(head * HIDDEN // HEADS, (head + 1) * HIDDEN // HEADS)
                scores = np.exp(query[:, cut] @ key[:, cut].T / math.sqrt(HIDDEN / HEADS))
                heads.append(scores / scores.sum(-1, keepdims=True) @ value[:, cut])
            attended = dense(f"{start}.attention.output.dense", np.concatenate(heads, -1))
            hidden = norm(f"{start}.attention.output.LayerNorm", attended + hidden)
            wide = dense(f"{start}.intermediate.dense", hidden)
            wide = wide * 0.5 * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
            hidden = norm(f"{start}.output.LayerNorm", dense(f"{start}.output.dense", wide) + hidden)
        pooled = hidden[0] if pooling == "cls" else hidden.mean(0)
        rows.append(pooled / np.linalg.norm(pooled))
    return np.stack(rows)


def embedded(folder: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    return session.run(["sentence_embedding"], {"input_ids": IDS, "attention_mask": MASK})[0]


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_computes_what_an_independent_encoder_computes(tmp_path: Path, pooling: str) -> None:
    write_checkpoint(tmp_path / "checkpoint", pooling=pooling)
    built = build_from_checkpoint(tmp_path / "checkpoint", tmp_path / "models", "tiny")
    np.testing.assert_allclose(reference(tmp_path / "checkpoint", IDS, MASK, pooling=pooling), embedded(built), atol=2e-6)


def test_weights_with_the_prefix_bert_and_the_old_layer_norm_names_are_the_same(tmp_path: Path, checkpoint: Path) -> None:
    old = {
        f"bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in load_file(checkpoint / "model.safetensors").items()
    }
    other = shutil.copytree(checkpoint, tmp_path / "other")
    save_file(old, other / "model.safetensors")
    plain = build_from_checkpoint(checkpoint, tmp_path / "models", "plain")
    np.testing.assert_array_equal(embedded(plain), embedded(build_from_checkpoint(other, tmp_path / "models", "prefixed")))


def test_building_twice_gives_the_same_bytes(tmp_path: Path, checkpoint: Path) -> None:
    first = build_from_checkpoint(checkpoint, tmp_path / "one", "tiny")
    second = build_from_checkpoint(checkpoint, tmp_path / "two", "tiny")
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert [(first / file).read_bytes() for file in files] == [(second / file).read_bytes() for file in files]


def test_what_is_up_to_date_is_left_alone_and_what_changed_is_built_again(tmp_path: Path, checkpoint: Path) -> None:
    built = build_from_checkpoint(checkpoint, tmp_path / "models", "tiny")
    before = (built / "1" / "model.onnx").stat().st_ino
    build_from_checkpoint(checkpoint, tmp_path / "models", "tiny")
    assert before == (built / "1" / "model.onnx").stat().st_ino
    write_checkpoint(checkpoint, pooling="cls")
    build_from_checkpoint(checkpoint, tmp_path / "models", "tiny")
    np.testing.assert_allclose(reference(checkpoint, IDS, MASK, pooling="cls"), embedded(built), atol=2e-6)
    assert ["tiny"] == [path.name for path in (tmp_path / "models").iterdir()]


def test_a_tokenizer_is_made_from_vocab_txt_where_the_checkpoint_has_no_other(tmp_path: Path, checkpoint: Path) -> None:
    built = build_from_checkpoint(checkpoint, tmp_path / "models", "tiny")
    assert [2, 5, 6, 3] == Tokenizer.from_file(str(built / "1" / "tokenizer.json")).encode("Hemoglobin GLUCOSE").ids


def test_the_configuration_tells_batch_size_tokens_and_warm_up(tmp_path: Path, checkpoint: Path) -> None:
    built = build_from_checkpoint(checkpoint, tmp_path / "models", "tiny", max_batch_size=8)
    text = (built / "config.pbtxt").read_text()
    assert [True] * 3 == [
        part in text for part in ("max_batch_size: 8\n", f'"max_tokens" value: {{ string_value: "{POSITIONS}" }}', "model_warmup")
    ]
    assert [128, 128] == [(built / "warmup" / name).stat().st_size for name in ("input_ids", "attention_mask")]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "t5"}, "only BERT encoders"),
        ({"position_embedding_type": "relative_key"}, "only BERT encoders"),
        ({"hidden_act": "swish"}, "swish"),
        ({"hidden_size": 24}, "config.json implies"),
        ({"num_hidden_layers": 3}, "no weight encoder.layer.2"),
        ({"num_attention_heads": None}, "config.json"),
        ({"num_attention_heads": 5}, "shared by 5"),
    ],
)
def test_a_checkpoint_that_is_not_such_an_encoder_is_refused(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    write_checkpoint(tmp_path / "checkpoint", **changes)
    with pytest.raises(ConfigurationError, match=said):
        build_from_checkpoint(tmp_path / "checkpoint", tmp_path / "models", "tiny")
    assert [] == list((tmp_path / "models").glob("*"))


@pytest.mark.parametrize(
    ("missing", "said"), [("config.json", "config.json"), ("model.safetensors", "safe_serialization"), ("vocab.txt", "vocab.txt")]
)
def test_a_checkpoint_that_lacks_a_file_says_which(tmp_path: Path, checkpoint: Path, missing: str, said: str) -> None:
    (checkpoint / missing).unlink()
    with pytest.raises(ConfigurationError, match=said):
        build_from_checkpoint(checkpoint, tmp_path / "models", "tiny")


def test_a_damaged_weights_file_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        build_from_checkpoint(checkpoint, tmp_path / "models", "tiny")
