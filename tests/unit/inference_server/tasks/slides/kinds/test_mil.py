"""What a head's outputs mean."""

from __future__ import annotations

import numpy as np
import pytest

from inference_server.engine.port import TensorSpec
from inference_server.errors import ConfigurationError
from inference_server.scheduler.port import Caller, ModelFacts
from inference_server.tasks.slides.kinds.mil import AttentionHead
from inference_server.tasks.slides.manifest import HeadManifest

MANIFEST = HeadManifest(kind="mil", embedder="colours", classes=("pale", "pink"), output="logits", attention="weights")


def head(attention: tuple[int, ...], *, takes: type[np.generic] = np.float32) -> AttentionHead:
    def spec(name: str, *shape: int, dtype: type[np.generic] = np.float32) -> TensorSpec:
        return TensorSpec(name=name, dtype=np.dtype(dtype), shape=shape)

    facts = ModelFacts(
        name="judge",
        version="1",
        engine="onnxruntime:float32",
        inputs=(spec("bag", -1, 4, dtype=takes),),
        outputs=(spec("logits", 1, 2), spec("weights", *attention)),
        max_batch_size=0,
        sha256="",
        parameters={},
    )
    return AttentionHead(manifest=MANIFEST, facts=facts, features=4)


@pytest.mark.parametrize("tiles", [2, 3])
@pytest.mark.parametrize("classes_last", [True, False])
def test_attention_by_class_is_that_of_the_positive_class_however_many_tiles_there_are(tiles: int, classes_last: bool) -> None:
    pink = np.linspace(0.1, 0.9, tiles, dtype=np.float32)
    by_class = np.stack([1 - pink, pink])
    weights = by_class.T if classes_last else by_class
    found = head((-1, 2) if classes_last else (2, -1)).attention({"weights": weights}, tiles)
    assert found is not None
    np.testing.assert_allclose(found, pink, rtol=1e-6)


def test_vectors_beyond_what_a_head_takes_are_refused() -> None:
    vectors = np.array([[1, 2, 3, 4], [5, 6, -7e4, 8]], np.float32)
    assert np.float16 == head((-1,), takes=np.float16).request(vectors / 2, Caller()).inputs["bag"].dtype
    with pytest.raises(ConfigurationError, match=r"colours puts out -70000, and float16 holds ±65504 at most. Export judge so that it"):
        head((-1,), takes=np.float16).request(vectors, Caller())


def test_a_head_that_takes_whole_numbers_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="judge takes bag of the type int64; a head takes vectors of floats"):
        head((-1,), takes=np.int64)


def test_a_head_that_puts_out_probabilities_where_softmax_is_told_is_doubted() -> None:
    judge = head((-1,))
    assert () == judge.doubt({"logits": np.array([[0.2, 0.9]], np.float32)})
    assert () == judge.doubt({"logits": np.array([[-0.5, 1.5]], np.float32)})
    [note] = judge.doubt({"logits": np.array([[0.2, 0.8]], np.float16)})
    assert "softmax was applied twice" in note
    # Rounded to 8 bits, they sum to 1.004.
    assert judge.doubt({"logits": np.array([[0.2001953125, 0.8046875]], np.float32)})
