"""One trained model, quantized in several ways: the best is certified, and its certificate is as good as any."""

import pandas as pd
import pytest
from tiny import complaint, settings, write_params, write_texts

from sublora.certificate.schema import load_certificate
from sublora.errors import SubloraError
from sublora.experiment import as_experiment
from sublora.reporting.figures import trade_off
from sublora.search import search_run
from sublora.verification import verify


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    experiment = as_experiment(settings(write_texts(folder / "texts", 500), compression={"levels": 5}))
    run, ways = search_run(experiment, folder / "runs", ("uniform", "kmeans"), (2, 5, 30))
    return experiment, folder / "runs", run, ways


def test_every_way_is_in_the_table_and_the_best_is_certified(made):
    experiment, runs, run, ways = made
    assert run.name == "tiny-optimized"
    assert list(ways.columns) == ["quantizer", "levels", "message_bits", "alpha", "empirical", "gap", "bound"]
    assert list(zip(ways["quantizer"], ways["levels"], strict=True)) == [(q, n) for q in ("uniform", "kmeans") for n in (2, 5, 30)]
    best = ways.loc[ways["bound"].idxmin()]
    certificate = load_certificate(run / "certificate.json")
    compression = certificate.params["compression"]
    assert (compression["quantizer"], compression["levels"]) == (best["quantizer"], best["levels"])
    assert (certificate.message_bits, certificate.alpha) == (best["message_bits"], best["alpha"])
    assert certificate.experiment == certificate.params["name"] == "tiny-optimized"
    assert ((ways["bound"] - ways["empirical"] - ways["gap"]).abs() < 1e-12).all()
    assert ways.groupby("levels")["message_bits"].max().is_monotonic_increasing
    assert verify(run / "certificate.json", runs / "corpora") == []
    pd.testing.assert_frame_equal(pd.read_csv(run / "trade-off.csv"), ways)


def test_a_scan_that_was_interrupted_goes_on_without_scoring_again(made, monkeypatch):
    experiment, runs, run, ways = made
    monkeypatch.setattr("sublora.scoring.scores._looked_at", lambda *_: pytest.fail("scored again"))
    _, again = search_run(experiment, runs, ("uniform", "kmeans"), (2, 5, 30))
    pd.testing.assert_frame_equal(again, ways)


def test_the_trade_off_names_its_axes_and_every_way(made):
    axes = trade_off(made[3], uniform=8.0).axes[0]
    assert "bits per token" in axes.get_xlabel() and "bits per token" in axes.get_ylabel()
    assert sorted(text.get_text() for text in axes.texts) == sorted(["2", "5", "30"] * 2)
    beside = trade_off(made[3].assign(reference_empirical=3.949, gain=0.2599)).axes[0]
    assert any("gain 0.25" in name and "by itself: 3.95" in name for name in beside.get_legend_handles_labels()[1])


def test_what_the_message_cannot_hold_is_named(made):
    with pytest.raises(SubloraError, match="compression.levels"):
        search_run(made[0], made[1], ("kmeans",), (1000,))
    with pytest.raises(SubloraError, match="compression.quantizer"):
        search_run(made[0], made[1], ("magic",), (3,))


def test_only_language_models_in_a_subspace_are_searched(made):
    with pytest.raises(SubloraError, match="not kind 'classify'"):
        search_run(as_experiment({"kind": "classify", "name": "other"}), made[1], ("kmeans",), (3,))


def test_the_command_prints_the_table(made, sublora, tmp_path):
    adapted = {"quantizer": "ecsq", "entropy_penalty": 0.5, "finetune_steps": 9, "finetune_learning_rate": 0.1, "rate_penalty": 1.0}
    params = write_params(tmp_path / "tiny.yaml", made[0].parameters() | {"compression": adapted})
    status, printed, _ = sublora("optimize", params, "--levels", "2,5", "--no-finetune", "--runs", made[1])
    assert status == 0 and "kmeans" in printed and "trade-off.svg" in printed
    assert (made[2] / "trade-off.svg").stat().st_size > 1000
    assert "--levels: 'two' is not a list" in complaint(sublora("optimize", params, "--levels", "two", "--runs", made[1]))
