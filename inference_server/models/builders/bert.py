"""Imports any BERT sentence encoder: its checkpoint folder becomes a model of the repository, without torch."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from safetensors import SafetensorError
from safetensors.numpy import load_file

from inference_server.errors import ConfigurationError
from inference_server.models.builders.bert_graph import Array, BertConfig, BertGraph

# Raised when the graph or the folder changes, so that models of an older build are built again.
_REVISION = 2
_ACTIVATIONS = frozenset({"gelu", "relu", "tanh"})


def build_from_checkpoint(checkpoint: Path, models: Path, name: str, *, max_batch_size: int = 64) -> Path:
    """Write `<models>/<name>/` from a folder with config.json, model.safetensors and tokenizer.json (or vocab.txt).

    Deterministic, and skipped when the folder is up to date. Raises `ConfigurationError` when the checkpoint cannot be imported.
    """
    config = read_config(checkpoint)
    weights_file = checkpoint / "model.safetensors"
    if not weights_file.is_file():
        raise ConfigurationError(
            f"{checkpoint} has no model.safetensors. Save it with `model.save_pretrained(folder, safe_serialization=True)` first."
        )
    fingerprint = _fingerprint(checkpoint, config, max_batch_size)
    target = models / name
    if _is_up_to_date(target, fingerprint):
        return target
    weights = _read_weights(weights_file)
    graph = BertGraph(config, weights).build(name)
    models.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=models))
    try:
        scratch.chmod(0o755)
        _write(scratch, checkpoint, graph, name, config, fingerprint, max_batch_size)
        _replace(target, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def read_config(checkpoint: Path) -> BertConfig:
    """Read the encoder's shape. Raises `ConfigurationError` when it is not a BERT encoder."""
    config = _read_json(checkpoint / "config.json")
    if config is None:
        raise ConfigurationError(f"{checkpoint} has no config.json; expected the folder of a BERT checkpoint.")
    if config.get("model_type", "bert") != "bert" or config.get("position_embedding_type", "absolute") != "absolute":
        raise ConfigurationError(
            f"{checkpoint} holds a {config.get('model_type')} model; only BERT encoders with absolute positions can be imported."
        )
    activation = str(config.get("hidden_act", "gelu"))
    if activation not in _ACTIVATIONS:
        raise ConfigurationError(f"{checkpoint} uses the activation {activation}; expected one of {', '.join(sorted(_ACTIVATIONS))}.")
    sentence = _read_json(checkpoint / "sentence_bert_config.json") or {}
    pooling = _read_json(checkpoint / "1_Pooling" / "config.json") or {}
    try:
        positions = int(config["max_position_embeddings"])
        shape = BertConfig(
            hidden_size=int(config["hidden_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=int(config["num_attention_heads"]),
            activation=activation,
            layer_norm_epsilon=float(config.get("layer_norm_eps", 1e-12)),
            max_tokens=min(positions, int(sentence.get("max_seq_length") or positions)),
            pooling="cls" if pooling.get("pooling_mode_cls_token") else "mean",
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigurationError(
            f"{checkpoint / 'config.json'} lacks or misstates {error}; expected the file of a BERT checkpoint."
        ) from error
    if shape.hidden_size % shape.heads:
        raise ConfigurationError(f"{checkpoint}: {shape.hidden_size} dimensions cannot be shared by {shape.heads} attention heads.")
    return shape


def _replace(target: Path, scratch: Path) -> None:
    """Put a finished folder in place of an older one, which is whole until then."""
    if not target.exists():
        scratch.rename(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
    target.rename(aside / target.name)
    scratch.rename(target)
    shutil.rmtree(aside, ignore_errors=True)


def _read_weights(path: Path) -> dict[str, Array]:
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read ({type(error).__name__}); expected a whole safetensors file.") from error
    renamed = {}
    for name, tensor in tensors.items():
        name = name.removeprefix("bert.").replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        if name.startswith(("embeddings.", "encoder.")) and tensor.dtype.kind == "f":
            renamed[name] = tensor.astype(np.float32)
    return renamed


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} is not readable JSON ({type(error).__name__}).") from error
    return content if isinstance(content, dict) else {}


def _fingerprint(checkpoint: Path, config: BertConfig, max_batch_size: int) -> str:
    digest = hashlib.sha256(f"{_REVISION} {config} {max_batch_size}".encode())
    for file in ("model.safetensors", "tokenizer.json", "vocab.txt", "tokenizer_config.json"):
        path = checkpoint / file
        if path.is_file():
            with path.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def _is_up_to_date(target: Path, fingerprint: str) -> bool:
    wanted = (target / "config.pbtxt", target / "1" / "model.onnx", target / "1" / "tokenizer.json")
    return all(path.is_file() for path in wanted) and fingerprint in wanted[0].read_text("utf-8")


def _write(
    folder: Path, checkpoint: Path, graph: onnx.ModelProto, name: str, config: BertConfig, fingerprint: str, max_batch_size: int
) -> None:
    version = folder / "1"
    version.mkdir()
    (version / "model.onnx").write_bytes(graph.SerializeToString(deterministic=True))
    _write_tokenizer(checkpoint, version / "tokenizer.json")
    # A typical short text, for the engines to be warmed up and compared on: token numbers must lie within the vocabulary.
    warm_up = folder / "warmup"
    warm_up.mkdir()
    (warm_up / "input_ids").write_bytes(np.arange(100, 116, dtype="<i8").tobytes())
    (warm_up / "attention_mask").write_bytes(np.ones(16, dtype="<i8").tobytes())
    (folder / "config.pbtxt").write_text(_config_text(name, config, fingerprint, max_batch_size), "utf-8")


def _write_tokenizer(checkpoint: Path, target: Path) -> None:
    if (checkpoint / "tokenizer.json").is_file():
        shutil.copyfile(checkpoint / "tokenizer.json", target)
        return
    if not (checkpoint / "vocab.txt").is_file():
        raise ConfigurationError(
            f"{checkpoint} has neither tokenizer.json nor vocab.txt; one of them is needed to split texts into tokens."
        )
    from tokenizers import BertWordPieceTokenizer

    settings = _read_json(checkpoint / "tokenizer_config.json") or {}
    lower_case = bool(settings.get("do_lower_case", True))
    BertWordPieceTokenizer(str(checkpoint / "vocab.txt"), lowercase=lower_case, strip_accents=lower_case).save(str(target))


def _config_text(name: str, config: BertConfig, fingerprint: str, max_batch_size: int) -> str:
    def tensor(block: str, label: str, kind: str, dims: str) -> str:
        return f'{block} [{{ name: "{label}" data_type: {kind} dims: [ {dims} ] }}]\n'

    def warm(label: str) -> str:
        return f'  inputs {{ key: "{label}" value: {{ data_type: TYPE_INT64 dims: [ 16 ] input_data_file: "{label}" }} }}\n'

    def parameter(key: str, value: object) -> str:
        return f'parameters {{ key: "{key}" value: {{ string_value: "{value}" }} }}\n'

    # Short texts, paragraphs, and the longest.
    lengths = sorted({min(length, config.max_tokens) for length in (32, 128, config.max_tokens)})
    shapes = [f"1x1:{max_batch_size}x{length}:{max_batch_size}x{length}" for length in lengths]
    profiles = [f"input_ids={shape},attention_mask={shape}" for shape in shapes]
    return (
        f'name: "{name}"\nbackend: "onnxruntime"\nmax_batch_size: {max_batch_size}\n'
        + tensor("input", "input_ids", "TYPE_INT64", "-1")
        + tensor("input", "attention_mask", "TYPE_INT64", "-1")
        + tensor("output", "sentence_embedding", "TYPE_FP32", str(config.hidden_size))
        + "dynamic_batching { }\n"
        + 'model_warmup [{\n  name: "short_texts"\n  batch_size: 8\n'
        + warm("input_ids")
        + warm("attention_mask")
        + "}]\n"
        + parameter("task", "sentence_embedding")
        + parameter("max_tokens", config.max_tokens)
        + "".join(parameter(f"lamina.tensorrt_profile.{number}", profile) for number, profile in enumerate(profiles, 1))
        + parameter("fingerprint", fingerprint)
    )
