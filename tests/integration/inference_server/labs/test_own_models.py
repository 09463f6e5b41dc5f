"""Another encoder is imported and chosen, a ranker is trained, and labs are served alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
from lamina.v1 import documents_pb2, documents_pb2_grpc, labs_pb2, labs_pb2_grpc
from safetensors.numpy import save_file

from inference_server.tasks.labs.classifier import LabClassifier
from inference_server.tasks.labs.matching.ranker import keep_ranker, read_ranker
from inference_server.tasks.labs.training.fitting import Fitting
from inference_server.tasks.labs.training.train import Plan, train
from tests.support.inference_server.server_process import running_server
from tests.support.models.built_models import built_models
from tests.support.models.direct_inference import DirectInference

HIDDEN, WIDE = 16, 24
_MARKS = "abcdefghijklmnopqrstuvwxyz0123456789"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_MARKS, *(f"##{mark}" for mark in _MARKS)]


def random_bert(folder: Path) -> Path:
    """A checkpoint of one layer that nobody trained."""
    random = np.random.default_rng(3)
    dense = {"attention.self.query": (HIDDEN, HIDDEN), "attention.self.key": (HIDDEN, HIDDEN), "attention.self.value": (HIDDEN, HIDDEN),
             "attention.output.dense": (HIDDEN, HIDDEN), "intermediate.dense": (WIDE, HIDDEN), "output.dense": (HIDDEN, WIDE)}  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {
        # The numbers of the built-in warm-up reach 115.
        "embeddings.word_embeddings.weight": (128, HIDDEN),
        "embeddings.position_embeddings.weight": (64, HIDDEN),
        "embeddings.token_type_embeddings.weight": (2, HIDDEN),
    }
    norms = ["embeddings.LayerNorm", "encoder.layer.0.attention.output.LayerNorm", "encoder.layer.0.output.LayerNorm"]
    shapes |= {f"{norm}.{kind}": (HIDDEN,) for norm in norms for kind in ("weight", "bias")}
    for name, shape in dense.items():
        shapes |= {f"encoder.layer.0.{name}.weight": shape, f"encoder.layer.0.{name}.bias": shape[:1]}
    folder.mkdir()
    save_file({name: random.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}, folder / "model.safetensors")
    config = {"model_type": "bert", "hidden_size": HIDDEN, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return folder


@pytest.mark.timeout(300)
def test_an_imported_encoder_matches_lab_tests_where_it_is_chosen_and_other_services_are_left_out(models: Path, tmp_path: Path) -> None:
    (models / "he_baseline").symlink_to(built_models("he_baseline") / "he_baseline")
    command = [sys.executable, "-m", "inference_server", "models", "import-bert", str(random_bert(tmp_path / "tiny-bert"))]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INFERENCE_")}
    told = subprocess.run([*command, "--models", str(models)], capture_output=True, text=True, check=True, env=environment, timeout=120)
    assert "INFERENCE_LAB_MODEL=tiny-bert" in told.stdout
    flags = ("--services", "labs", "--lab-model", "tiny-bert", "--engine", "onnxruntime:float32")
    with running_server(models, tmp_path, *flags) as server:
        server.wait_for("catalogue_ready", seconds=120)
        loaded = {event["model"] for event in server.events() if event["event"] == "model_ready"}
        assert (True, False) == ("tiny-bert" in loaded, "he_baseline" in loaded)
        with grpc.insecure_channel(server.grpc) as channel:
            request = labs_pb2.ClassifyLabTestsRequest(tests=[labs_pb2.LabTest(name="Hemoglobin", unit="g/dL")])
            found = labs_pb2_grpc.LabServiceStub(channel).ClassifyLabTests(request, timeout=60)
            assert ("tiny-bert:1", "718-7") == (found.model, found.classifications[0].candidates[0].code)
            with pytest.raises(grpc.RpcError) as refused:
                next(
                    documents_pb2_grpc.DocumentServiceStub(channel).RecognizeDocument(documents_pb2.RecognizeDocumentRequest(), timeout=60)
                )
        assert grpc.StatusCode.UNIMPLEMENTED == refused.value.code()


@pytest.mark.timeout(300)
async def test_a_ranker_is_trained_on_the_catalogue_and_the_same_twice(models: Path) -> None:
    plan = Plan(made=60, named=120, other=20, networks=1, fitting=Fitting(hidden=6, rounds=2))
    first, again = [
        await train(DirectInference(models), models, model="all_minilm_l6_v2", progress=lambda *_: None, plan=plan) for _ in range(2)
    ]
    assert np.array_equal(first.networks[0].into, again.networks[0].into)
    assert first.provenance == again.provenance
    assert 0.3 < first.provenance["held out"]["top-1"] <= 1
    assert first.provenance["trained on"].startswith("tests made of the catalogue builtin:")
    keep_ranker(models / "_catalogue" / "ranker.json", first)
    assert first.provenance == read_ranker(models / "_catalogue" / "ranker.json").provenance
    await LabClassifier(DirectInference(models), models).start()
