"""A document with the loss of each byte in colour: what is in the table, and nothing that a page would take for HTML."""

from certificates import certificate, classifier_certificate

from sublora.reporting import heat, sentences
from sublora.reporting.runs import KeptRun


def test_bytes_are_shown_with_their_bits_and_as_text(tmp_path):
    run = KeptRun("quick", tmp_path, certificate("quick"), None)
    assert "No document with its losses was kept" in heat.heat_map(run)
    text = "<b>`\n\x00"
    rows = [(0, ord(c), bits) for c, bits in zip(text, (9.5, 4.0, 0.5, 1.0, 2.0, 3.0), strict=True)]
    rows += [(1, ord("&"), 0), (1, "", 1)]
    (tmp_path / "heat.csv").write_text("sampled,byte,bits\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows))
    page = heat.heat_map(run)
    assert page.count("<pre") == 2 and page.count("<span") == 6 and "<b>" not in page and "&#96;" in page and "\x00" not in page
    assert 'title="8.0 bits"' in page and "rgba(213,94,0,0.80)" in page and "rgba(213,94,0,0.40)" in page
    assert '<pre class="heat">&amp;</pre>' in page


def test_the_model_is_described_by_its_own_settings():
    plain = certificate("quick")
    text = sentences.model(plain)
    assert text.startswith("The model is a GPT of ") and f"a message of {plain.message_bits // 8:,} bytes." in text
    assert sentences.model(classifier_certificate()).startswith("All that was learnt")
