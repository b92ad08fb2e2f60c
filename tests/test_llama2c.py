"""llama2.c files: the loaded model computes what the format means; damaged files are named."""

import struct

import numpy as np
import pytest
import torch

from sublora.data import get_tokenizer
from sublora.errors import SubloraError
from sublora.models.llama2c import load_llama2c

DIM, HIDDEN, LAYERS, HEADS, KV, V, CONTEXT = 16, 24, 2, 4, 2, 11, 20
SIZE = DIM // HEADS


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(path, weights by name) of a random model with shared keys and values."""
    random = np.random.default_rng(0)
    width = SIZE * KV
    shapes = [
        ("embed", (V, DIM)), ("an", (LAYERS, DIM)), ("q", (LAYERS, DIM, DIM)), ("k", (LAYERS, width, DIM)),
        ("v", (LAYERS, width, DIM)), ("o", (LAYERS, DIM, DIM)), ("fn", (LAYERS, DIM)), ("w1", (LAYERS, HIDDEN, DIM)),
        ("w2", (LAYERS, DIM, HIDDEN)), ("w3", (LAYERS, HIDDEN, DIM)), ("norm", (DIM,)), ("rope", (2, CONTEXT, SIZE // 2)),
    ]  # fmt: skip
    weights = {name: random.normal(0, 0.4, shape).astype("<f4") for name, shape in shapes}
    path = tmp_path_factory.mktemp("llama") / "model.bin"
    header = struct.pack("<7i", DIM, HIDDEN, LAYERS, HEADS, KV, V, CONTEXT)
    path.write_bytes(header + b"".join(weights[name].tobytes() for name, _ in shapes))
    return path, weights


def forward(w, tokens):
    """llama2.c's forward pass: rotary pairs side by side, one token after the other."""

    def norm(x, weight):
        return weight * x / np.sqrt((x * x).mean() + 1e-5)

    def rotate(x, position):
        out = x.copy()
        for i in range(0, len(x), 2):
            angle = position / 10000 ** ((i % SIZE) / SIZE)
            out[i] = x[i] * np.cos(angle) - x[i + 1] * np.sin(angle)
            out[i + 1] = x[i] * np.sin(angle) + x[i + 1] * np.cos(angle)
        return out

    keys, values, logits = [[] for _ in range(LAYERS)], [[] for _ in range(LAYERS)], []
    for position, token in enumerate(tokens):
        x = w["embed"][token].astype(np.float64)
        for i in range(LAYERS):
            h = norm(x, w["an"][i])
            q = rotate(w["q"][i] @ h, position)
            keys[i].append(rotate(w["k"][i] @ h, position))
            values[i].append(w["v"][i] @ h)
            parts = []
            for head in range(HEADS):
                mine, theirs = slice(head * SIZE, (head + 1) * SIZE), slice(head // 2 * SIZE, (head // 2 + 1) * SIZE)
                scores = np.array([q[mine] @ key[theirs] for key in keys[i]]) / np.sqrt(SIZE)
                share = np.exp(scores - scores.max())
                parts.append(sum(s * value[theirs] for s, value in zip(share / share.sum(), values[i], strict=True)))
            x = x + w["o"][i] @ np.concatenate(parts)
            h = norm(x, w["fn"][i])
            gate = w["w1"][i] @ h
            x = x + w["w2"][i] @ (gate / (1 + np.exp(-gate)) * (w["w3"][i] @ h))
        logits.append(w["embed"] @ norm(x, w["norm"]))
    return np.array(logits)


def test_logits_are_those_of_the_format(written):
    path, weights = written
    tokens = [1, 5, 3, 3, 10, 0, 7]
    with torch.no_grad():
        logits = load_llama2c(path)(torch.tensor([tokens])).logits[0].numpy()
    np.testing.assert_allclose(logits, forward(weights, tokens), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: data[:-4], "the file is cut or another"),
        (lambda data: data + b"1234", "the file is cut or another"),
        (lambda data: struct.pack("<7i", 2**30, 2**30, 2**20, 2, 2, 2**30, 2**30) + data[28:], "the file is cut or another"),
        (lambda data: struct.pack("<7i", 16, 24, 2, 3, 3, 11, 20) + data[28:], "is not that of a Llama"),
        (lambda data: struct.pack("<7i", 16, 24, 2, 4, 2, -11, 20) + data[28:], "is not that of a Llama"),
        (lambda data: data[:20], "are no llama2.c checkpoint"),
    ],
)
def test_damaged_checkpoints_are_named(written, tmp_path, change, says):
    path = tmp_path / "damaged.bin"
    path.write_bytes(change(written[0].read_bytes()))
    with pytest.raises(SubloraError, match=says) as caught:
        load_llama2c(path)
    assert str(caught.value).startswith(str(path))


def tokenizer_file(path, extra, early=False):
    tokens = [b"<unk>", b"<s>", b"</s>", *(b"<0x%02X>" % i for i in range(256)), *extra]
    if early:
        tokens[1:259] = [b"\n<s>\n", b"\n</s>\n", *(chr(i).encode() for i in range(256))]
    body = b"".join(struct.pack("<fi", -float(i), len(token)) + token for i, token in enumerate(tokens))
    path.write_bytes(struct.pack("<i", 10) + body)
    return path


def test_the_best_score_is_merged_first_and_unknown_letters_are_bytes(tmp_path):
    tokenizer = get_tokenizer(str(tokenizer_file(tmp_path / "t.bin", [b" a", b"ab", b" ", b"a", b"b"])))
    assert (tokenizer.name, tokenizer.vocab_size, tokenizer.eot) == ("t.bin", 264, 1)
    ids = tokenizer.encode("ab\u00e9").tolist()
    assert ids[:2] == [259, 263], "' a' comes before 'ab'"
    assert ids[2:] == [0xC3 + 3, 0xA9 + 3] and tokenizer.decode([1, *ids]) == "ab\u00e9"


def test_early_files_have_the_tokens_of_later_ones(tmp_path):
    """Their single bytes are written as characters, which pieces of text may be, too. Twin: "a token is there twice"."""
    extra = [b" a", b"ab", b" ", b"a", b"b", "\u00e9".encode(), b"\n<s>\n"]
    early = get_tokenizer(str(tokenizer_file(tmp_path / "early.bin", extra[:-1], early=True)))
    later = get_tokenizer(str(tokenizer_file(tmp_path / "later.bin", extra[:-1])))
    for text in ("ab\u00e9", "\u00ff\n<0x41>A", "\n<s>\n", "\u65e5"):
        ids = early.encode(text)
        assert ids.tolist() == later.encode(text).tolist() and early.decode(ids) == text and early.eot not in ids
    assert early.encode("\u00e9")[-1] == 264 and early.encode("\n")[-1] == 3 + 10
    with pytest.raises(SubloraError, match="there twice"):
        get_tokenizer(str(tokenizer_file(tmp_path / "twice.bin", extra, early=True)))


def test_text_that_looks_like_a_special_token_is_text(tmp_path):
    extra = [b" ", *(bytes([letter]) for letter in b"<s>0x1F/")]
    tokenizer = get_tokenizer(str(tokenizer_file(tmp_path / "t.bin", extra)))
    for text in ("<s>", "</s><s>", "<0x1F>"):
        ids = tokenizer.encode(text)
        assert min(ids) >= 259 and tokenizer.decode(ids) == text


def test_damaged_tokenizers_are_named(tmp_path):
    path = tokenizer_file(tmp_path / "t.bin", [b"a"])
    for data in (path.read_bytes()[:-1], path.read_bytes()[:100], b"", path.read_bytes() + struct.pack("<fi", 0.0, -5)):
        path.write_bytes(data)
        with pytest.raises(SubloraError, match="not a llama2.c tokenizer"):
            get_tokenizer(str(path))
    for extra, says in (([b"\xff\xfe"], "is not UTF-8"), ([b"a", b"a"], "there twice")):
        with pytest.raises(SubloraError, match=says):
            get_tokenizer(str(tokenizer_file(path, extra)))
    with pytest.raises(SubloraError, match="cannot read"):
        get_tokenizer(str(tmp_path / "none.bin"))
