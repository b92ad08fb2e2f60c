"""The certificate's format: its schema, what loading refuses, and the page that explains its keys."""

import os
import re
from pathlib import Path

import pytest
from certificates import altered, certificate, certificate_beside, classifier_certificate, write_run

from sublora.certificate import schema
from sublora.certificate.schema import LARGEST_CERTIFICATE, json_schema, load_certificate
from sublora.errors import SubloraError
from sublora.experiment.params import load_experiments
from sublora.reporting.keys import keys_table
from sublora.reporting.results import load_metrics


def test_the_kept_schema_is_that_of_the_code():
    kept = Path(schema.__file__).with_name("schema.json")
    assert kept.read_text("utf-8") == json_schema(), "write `json_schema()` to schema.json, and think of FORMAT"


@pytest.mark.parametrize("make", [certificate, certificate_beside, classifier_certificate])
def test_a_certificate_survives_saving_and_loading(tmp_path, make):
    file = tmp_path / "certificate.json"
    make().save(file)
    assert load_certificate(file) == make() == load_certificate(write_run(tmp_path, make()))
    assert file.read_text() == write_run(tmp_path / "again", make()).read_text()


@pytest.mark.parametrize(
    ("path", "to", "named"),
    [
        (("message_bits",), KeyError, "'message_bits' is missing"),
        (("message_bits",), 2_249, "message_bits 2249"),
        (("message",), "no base64!", "not base64"),
        (("message_sha256",), "0" * 64, "it was altered"),
        (("delta",), "0.05", "'delta'"),
        (("format",), "sublora-certificate/1", "'sublora-certificate/1'"),
        (("format",), "sublora-certificate/2", "'sublora-certificate/2', not 'sublora-certificate/3'; make the run again"),
        (("bounds", 0, "configurations"), None, "'bounds[0].configurations'"),
        (("bounds", 4, "configurations"), 0, "'bounds[4].configurations'"),
        (("format",), KeyError, "'format' is missing"),
        (("bounds",), [], "'bounds'"),
        (("bounds", 3, "units"), 1.5, "'bounds[3].units'"),
        (("bounds", 3, "unit"), 1, "'bounds[3].unit' is unknown"),
        (("bounds", 0, "bound"), 99.0, "nonvacuous contradicts"),
        (("bounds", 4, "pool"), None, "needs a pool"),
        (("bounds", 0, "alpha"), None, "metric bpd needs an alpha"),
        (("bounds", 0, "parts"), {"empirical": 1.0}, "'bounds[0].parts.complexity' is missing (and 1 more)"),
        (("corpus", "unit"), KeyError, "'corpus.unit' is missing"),
        (("environment", "seconds", "train"), None, "'environment.seconds.train'"),
        (("environment", "seconds", "train"), 1e308, "'environment.seconds.train' Input should be less than or equal to"),
        (("held_out", 0, "value"), float("nan"), "NaN is not a number"),
        (("alpha",), 0.3, "no bound in bits has the message's alpha, 0.3"),
        (("alpha",), None, "alpha is null"),
        (("alpha",), KeyError, "'alpha' is missing"),
        (("certified",), True, "'certified' is unknown"),
    ],
)
def test_a_wrong_certificate_is_one_line_with_file_and_key(tmp_path, path, to, named):
    file = write_run(tmp_path, altered(certificate(), *path, to=to))
    with pytest.raises(SubloraError) as caught:
        load_certificate(file)
    assert str(file) in str(caught.value) and named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "to", "named"),
    [
        (("bounds", -1, "gain"), KeyError, "gain belongs to betting and freedman"),
        (("bounds", -2, "gain"), 0.1, "gain belongs to betting and freedman"),
        (("bounds", -1, "reference_empirical"), None, "reference and reference_empirical belong together"),
        (("bounds", -1, "reference"), KeyError, "reference and reference_empirical belong together"),
        (("bounds", -1, "reference"), "uniform", "bounds"),
        (("held_out", -1, "reference_value"), KeyError, "reference and reference_value belong together"),
        (("public", "reference", "beta"), KeyError, "reference.beta' is missing"),
        (("public", "reference", "tau"), 0.0, "reference.tau"),
    ],
)
def test_what_is_beside_a_reference_is_whole(tmp_path, path, to, named):
    file = write_run(tmp_path, altered(certificate_beside(), *path, to=to))
    with pytest.raises(SubloraError, match=named):
        load_certificate(file)


def test_a_certificate_without_a_reference_does_not_mention_one():
    data = certificate().data()
    keys = {"reference", "reference_empirical", "reference_value", "gain"}
    assert not keys & {key for entry in (*data["bounds"], *data["held_out"], data["public"], data["params"]) for key in entry}


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[1]", "null", '"text"'])
def test_text_that_is_no_certificate_is_refused(tmp_path, text):
    file = tmp_path / "certificate.json"
    file.write_text(text)
    with pytest.raises(SubloraError, match="make the run again"):
        load_certificate(file)


def test_a_huge_or_binary_or_missing_file_is_refused(tmp_path):
    huge, binary = tmp_path / "huge.json", tmp_path / "binary.json"
    with huge.open("wb") as file:
        file.truncate(LARGEST_CERTIFICATE + 1)
    binary.write_bytes(b"\xff\xfe\x00")
    for path, named in ((huge, "larger than 96 MiB"), (binary, "cannot read"), (tmp_path / "none.json", "no certificate")):
        with pytest.raises(SubloraError, match=named):
            load_certificate(path)


@pytest.mark.parametrize("read", [load_certificate, load_experiments, load_metrics])
def test_what_is_no_file_is_not_read(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        with pytest.raises(SubloraError, match=f"^{path}: not a regular file"):
            read(path)


def leaves(values, before=""):
    """The keys of nested data as the table writes them."""
    for key, value in values.items():
        yield f"{before}{key}"
        for inside in value if isinstance(value, list) else [value]:
            if isinstance(inside, dict):
                yield from leaves(inside, f"{before}{key}{'[i]' * isinstance(value, list)}.")


def test_the_table_explains_every_key_of_a_file():
    rows = {row["Key"].replace("`", ""): row for row in keys_table().rows}
    assert len(rows) == len(keys_table().rows) and all(row["Type"] and row["Meaning"] for row in rows.values())
    public = r"public\.(units|evaluated|inequalities|assumptions|determinism)"
    values = rf"(params|{public}|environment\.seconds|reference|paper_accounting\.bounds\[i\])\."
    found = set()
    for make, kind in ((certificate_beside, "language model"), (classifier_certificate, "classifier")):
        keys = [key for key in leaves(make().data()) if not re.match(values, key)]
        found |= {f"{key} ({kind})" if key.startswith("public.") else key for key in keys}
    optional = {"environment.training_precision", "corpus.prior", "public.classes_from (classifier)"}
    optional |= {"public.base_configuration_sha256 (language model)"}
    optional |= {*(f"corpus.groups{key}" for key in ("", ".column", ".training", ".sha256"))}
    optional |= {f"public.bytes{key} (language model)" for key in ("", ".ratio", ".shortest")}
    assert found | optional == set(rows) and not found & optional
    assert rows["bounds[i].alpha"]["Type"] == "number between 0 and 1 or null"
    assert rows["message_bits"]["Type"] == "whole number, at least 1"
    assert rows["bounds"]["Type"] == "list of groups"
    assert rows["public.alpha_grid (language model)"]["Type"] == "list: number between 0 and 1"
