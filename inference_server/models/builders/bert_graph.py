"""The ONNX graph of a BERT sentence encoder, written node by node.

The encoder of Devlin et al. 2019 (arXiv:1810.04805), then the pooling of Reimers and Gurevych 2019 (arXiv:1908.10084), then L2
normalisation: `input_ids`, `attention_mask` [N, L] int64 → `sentence_embedding` [N, H] float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from inference_server.errors import ConfigurationError

_OPSET = 17
# Old enough for every runtime that reads this opset.
_IR_VERSION = 8

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class BertConfig:
    """The shape of an encoder, as config.json and its neighbours tell."""

    hidden_size: int
    layers: int
    heads: int
    # Of the feed-forward part: gelu, relu or tanh.
    activation: str
    layer_norm_epsilon: float
    # Tokens that one text may have, the two special ones included.
    max_tokens: int
    # How token vectors become one: mean or cls.
    pooling: str


class BertGraph:
    """Writes the ONNX graph of an encoder, node by node."""

    def __init__(self, config: BertConfig, weights: dict[str, Array]) -> None:
        """`weights`: by their names in a `BertModel`, without the prefix `bert.`."""
        self._config = config
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}

    def build(self, name: str) -> onnx.ModelProto:
        """The whole model. Raises `ConfigurationError` when a weight is missing or has another shape than config.json says."""
        hidden = self._embeddings()
        mask = self._attention_bias()
        for layer in range(self._config.layers):
            hidden = self._layer(f"encoder.layer.{layer}", hidden, mask)
        self._pool(hidden)
        rows_tokens = ["batch", "tokens"]
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info(each, TensorProto.INT64, rows_tokens) for each in ("input_ids", "attention_mask")],
            [helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", self._config.hidden_size])],
            list(self._initializers.values()),
        )
        model = helper.make_model(graph, producer_name="lamina", opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
        onnx.checker.check_model(model)
        return model

    def _embeddings(self) -> str:
        size = self._config.hidden_size
        words = self._weight("embeddings.word_embeddings.weight", (None, size))
        positions = self._weight("embeddings.position_embeddings.weight", (None, size))
        # Every text is a first segment, so that its type vector is a constant.
        kinds = self._weights.get("embeddings.token_type_embeddings.weight")
        kind = self._constant("segment", kinds[0] if kinds is not None else np.zeros(size, np.float32))
        shape = self._node("Shape", ["input_ids"], start=1)
        zero, axis = self._constant("zero", np.array([0], np.int64)), self._constant("axis_0", np.array([0], np.int64))
        tokens = self._node("Slice", [positions, zero, shape, axis])
        summed = self._node("Add", [self._node("Gather", [words, "input_ids"]), self._node("Add", [tokens, kind])])
        return self._layer_norm("embeddings.LayerNorm", summed)

    def _attention_bias(self) -> str:
        mask = self._node("Cast", ["attention_mask"], to=TensorProto.FLOAT)
        self._mask = self._node("Unsqueeze", [mask, self._constant("axis_2", np.array([2], np.int64))])
        inverted = self._node("Sub", [self._constant("one", np.float32(1)), mask])
        # Far below any score, and still finite in bfloat16 and float16.
        bias = self._node("Mul", [inverted, self._constant("masked", np.float32(-10_000))])
        return self._node("Unsqueeze", [bias, self._constant("axes_1_2", np.array([1, 2], np.int64))])

    def _layer(self, prefix: str, hidden: str, mask: str) -> str:
        attended = self._attention(prefix, hidden, mask)
        projected = self._dense(f"{prefix}.attention.output.dense", attended)
        hidden = self._layer_norm(f"{prefix}.attention.output.LayerNorm", self._node("Add", [projected, hidden]))
        wide = self._activation(self._dense(f"{prefix}.intermediate.dense", hidden))
        narrow = self._dense(f"{prefix}.output.dense", wide)
        return self._layer_norm(f"{prefix}.output.LayerNorm", self._node("Add", [narrow, hidden]))

    def _attention(self, prefix: str, hidden: str, mask: str) -> str:
        size, heads = self._config.hidden_size, self._config.heads
        split = self._constant("split_heads", np.array([0, 0, heads, size // heads], np.int64))
        merge = self._constant("merge_heads", np.array([0, 0, size], np.int64))

        def project(part: str, order: list[int]) -> str:
            dense = self._dense(f"{prefix}.attention.self.{part}", hidden)
            return self._node("Transpose", [self._node("Reshape", [dense, split])], perm=order)

        query, key, value = project("query", [0, 2, 1, 3]), project("key", [0, 2, 3, 1]), project("value", [0, 2, 1, 3])
        scale = self._constant("scale", np.float32(1 / np.sqrt(size // heads)))
        scores = self._node("Add", [self._node("Mul", [self._node("MatMul", [query, key]), scale]), mask])
        context = self._node("MatMul", [self._node("Softmax", [scores], axis=-1), value])
        return self._node("Reshape", [self._node("Transpose", [context], perm=[0, 2, 1, 3]), merge])

    def _activation(self, value: str) -> str:
        if self._config.activation != "gelu":
            return self._node({"relu": "Relu", "tanh": "Tanh"}[self._config.activation], [value])
        # The exact form x · ½ (1 + erf(x / √2)), which the runtimes fuse.
        inner = self._node("Erf", [self._node("Div", [value, self._constant("root_2", np.float32(np.sqrt(2)))])])
        product = self._node("Mul", [value, self._node("Add", [inner, self._constant("one", np.float32(1))])])
        return self._node("Mul", [product, self._constant("half", np.float32(0.5))])

    def _pool(self, hidden: str) -> None:
        if self._config.pooling == "cls":
            pooled = self._node("Gather", [hidden, self._constant("first", np.int64(0))], axis=1)
        else:
            axis = self._constant("sum_axis", np.array([1], np.int64))
            total = self._node("ReduceSum", [self._node("Mul", [hidden, self._mask]), axis], keepdims=0)
            count = self._node("ReduceSum", [self._mask, axis], keepdims=0)
            pooled = self._node("Div", [total, self._node("Max", [count, self._constant("one", np.float32(1))])])
        norm = self._node("ReduceL2", [pooled], axes=[1], keepdims=1)
        safe = self._node("Max", [norm, self._constant("tiny", np.float32(1e-12))])
        self._nodes.append(helper.make_node("Div", [pooled, safe], ["sentence_embedding"], name="sentence_embedding"))

    def _dense(self, prefix: str, value: str) -> str:
        # Checkpoints hold [out, in]; MatMul wants [in, out].
        weight = self._constant(f"{prefix}.weight", np.ascontiguousarray(self._array(f"{prefix}.weight", (None, None)).T))
        return self._node("Add", [self._node("MatMul", [value, weight]), self._weight(f"{prefix}.bias", (None,))])

    def _layer_norm(self, prefix: str, value: str) -> str:
        shape = (self._config.hidden_size,)
        scale, bias = self._weight(f"{prefix}.weight", shape), self._weight(f"{prefix}.bias", shape)
        return self._node("LayerNormalization", [value, scale, bias], axis=-1, epsilon=self._config.layer_norm_epsilon)

    def _weight(self, name: str, shape: tuple[int | None, ...]) -> str:
        return self._constant(name, self._array(name, shape))

    def _array(self, name: str, shape: tuple[int | None, ...]) -> Array:
        array = self._weights.get(name)
        if array is None:
            raise ConfigurationError(f"model.safetensors has no weight {name}; expected those of a BERT encoder.")
        if len(array.shape) != len(shape) or any(want not in (None, have) for want, have in zip(shape, array.shape, strict=True)):
            raise ConfigurationError(f"the weight {name} has the shape {array.shape}; config.json implies {shape}.")
        return array

    def _constant(self, name: str, value: NDArray[np.generic] | np.generic) -> str:
        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def _node(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        output = f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output
