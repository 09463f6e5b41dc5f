"""The trained ranker: what is shipped can be read, what is damaged is passed over, and learning finds what tells codes apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from inference_server.errors import InvalidCatalogue
from inference_server.tasks.labs.catalogue.catalogue import Catalogue, load_catalogue
from inference_server.tasks.labs.matching.ranker import read_ranker, write_ranker
from inference_server.tasks.labs.matching.ranking import SHIPPED, best_ranking
from inference_server.tasks.labs.training.fitting import Fitting, Listed, fit_curve, fit_network
from inference_server.tasks.labs.training.printed import Printer


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return load_catalogue(tmp_path_factory.mktemp("models"))


def test_the_shipped_ranker_says_what_it_was_trained_on(tmp_path: Path) -> None:
    ranker = read_ranker(SHIPPED)
    assert {"trained on", "encoder", "examples", "seed", "held out"} <= ranker.provenance.keys()
    write_ranker(tmp_path / "again.json", ranker)
    assert SHIPPED.read_text("utf-8") == (tmp_path / "again.json").read_text("utf-8")


def test_the_repositorys_own_ranker_goes_before_the_shipped_one(catalogue: Catalogue, tmp_path: Path) -> None:
    own = tmp_path / "ranker.json"
    assert "shipped" == best_ranking(catalogue, own)[1]
    own.write_bytes(SHIPPED.read_bytes())
    assert "trained" == best_ranking(catalogue, own)[1]


def test_a_damaged_ranker_is_passed_over_and_without_any_the_hand_set_weights_rank(catalogue: Catalogue, tmp_path: Path) -> None:
    own = tmp_path / "ranker.json"
    own.write_text("{")
    assert "shipped" == best_ranking(catalogue, own)[1]
    assert "by hand" == best_ranking(catalogue, own, shipped=tmp_path / "none.json")[1]


@pytest.mark.parametrize("change", [{"format": 0}, {"columns": ["name"]}, {"mean": [0.0]}, {"networks": [{}]}])
def test_a_ranker_of_another_make_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "ranker.json"
    path.write_text(json.dumps(json.loads(SHIPPED.read_text("utf-8")) | change))
    with pytest.raises(InvalidCatalogue, match="train it again"):
        read_ranker(path)


def test_the_same_seed_prints_the_same_tests(catalogue: Catalogue) -> None:
    first, second = ([Printer(3).print(entry) for entry in catalogue.entries[:50]] for _ in range(2))
    assert first == second
    assert len({test.name for test in first}) > 40


def test_a_network_learns_which_column_tells() -> None:
    random = np.random.default_rng(0)
    lists = [
        Listed(columns=columns, start=np.zeros(6, np.float32), right=int(np.argmax(columns[:, 1])))
        for columns in (random.normal(size=(6, 3)).astype(np.float32) for _ in range(400))
    ]
    network = fit_network(lists[:300], 1, Fitting(hidden=8, rounds=20, rate=0.02), lambda done: None)
    right = [int(np.argmax(network.scores(each.columns))) == each.right for each in lists[300:]]
    assert np.mean(right) > 0.9


def test_a_curve_gives_the_shares_that_it_was_shown() -> None:
    random = np.random.default_rng(0)
    inputs = random.normal(size=(4000, 1)).astype(np.float32)
    truths = random.random(4000) < 1 / (1 + np.exp(-2 * inputs[:, 0]))
    shares = fit_curve(inputs, truths).shares(np.array([[-1.0], [0.0], [1.0]], np.float32))
    assert [pytest.approx(share, abs=0.04) for share in (0.119, 0.5, 0.881)] == shares.tolist()
