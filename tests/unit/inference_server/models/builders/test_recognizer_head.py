"""The last layer of a recogniser, split into common and rare classes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from inference_server.errors import ConfigurationError
from inference_server.models.builders.recognizer_head import split_recognizer

# Two signs, three East Asian ones that look like common characters, and many that look like nothing else.
CHARACTERS = ["a", "7", "µ", "≤", "→", "：", "ー", "一", *map(chr, range(0x8840, 0x8860))]
CLASSES, FEATURES = len(CHARACTERS) + 2, 6


def recognizer(*last: str) -> onnx.ModelProto:
    """A model of one layer: features [n, t, 6] → what `last` makes of the logits."""
    generator = np.random.default_rng(1)
    weights = generator.normal(0, 1, (FEATURES, CLASSES)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "weights"], ["product"]), helper.make_node("Add", ["product", "bias"], ["logits"])]
    nodes += [helper.make_node(kind, [before], [kind]) for before, kind in zip(("logits", *last), last, strict=False)]
    graph = helper.make_graph(
        nodes,
        "recognizer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "t", FEATURES])],
        [helper.make_tensor_value_info(last[-1], TensorProto.FLOAT, ["n", "t", CLASSES])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(generator.normal(0, 1, CLASSES).astype(np.float32), "bias")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def run(model: onnx.ModelProto, x: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip((output.name for output in session.get_outputs()), session.run(None, {"x": x}), strict=True))


@pytest.mark.parametrize("last", [("Softmax",), ("Softmax", "Identity")])
def test_all_logits_can_be_had_of_what_is_answered(last: tuple[str, ...]) -> None:
    model = recognizer(*last)
    x = np.random.default_rng(2).normal(0, 1, (2, 3, FEATURES)).astype(np.float32)
    whole = run(model, x)[last[-1]]
    split = split_recognizer(model, CHARACTERS, "rec.onnx")
    answer = run(split.model, x)
    assert (("a", "7", "µ"), tuple(CHARACTERS[3:])) == (split.common, split.rare)
    rare = answer["features"] @ split.rare_weights[:, :-1].T + split.rare_weights[:, -1]
    logits = np.concatenate([answer["common"][:, :, :4], rare, answer["common"][:, :, 4:]], axis=2)
    np.testing.assert_allclose(whole, np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True), rtol=1e-4)


def test_signs_and_what_looks_like_them_are_never_thought_less_likely_than_they_are() -> None:
    x = np.random.default_rng(2).normal(0, 1, (2, 50, FEATURES)).astype(np.float32)
    split = split_recognizer(recognizer("Softmax"), CHARACTERS, "rec.onnx")
    answer = run(split.model, x)
    signs = answer["features"] @ split.rare_weights[:5, :-1].T + split.rare_weights[:5, -1]
    assert (answer["rare"] >= signs.max(axis=2) - 1e-4).all()


def test_a_model_that_ends_in_something_else_is_refused_by_its_name() -> None:
    with pytest.raises(ConfigurationError, match=r"rec\.onnx of the package rapidocr does not end in .*no Softmax"):
        split_recognizer(recognizer("Sigmoid"), CHARACTERS, "rec.onnx")
