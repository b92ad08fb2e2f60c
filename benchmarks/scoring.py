"""Scoring: tokens a second, packed (`sublora.scoring.scores`) against one document at a time.

The straightforward way, as published code goes about it: one document and one window at a time, the softmax of the whole
vocabulary, the whole vocabulary sorted, and a Python loop over the tokens for each one's probability and rank. Same model, same
documents, same window rule; the losses must agree to 1e-5 bits (ranks differ only where two logits are nearly the same number).

    python benchmarks/scoring.py [--vocabulary 257] [--documents 200] [--device cpu]
"""

# ruff: noqa: I001  (sublora comes before torch: it sets how threads wait)
import argparse
import tempfile
import time

import numpy as np

import sublora  # noqa: F401
import torch
from sublora.data import write_store
from sublora.experiment import Gpt
from sublora.inequalities.smoothing import smoothed_bits
from sublora.models import GPT
from sublora.scoring.scores import score, unit_windows

ALPHA = 0.1


@torch.inference_mode()
def straightforward(model, store, documents, *, block, stride, device):
    """(log probabilities, ranks) of every token of the documents."""
    logs, ranks = [], []
    for index in documents:
        document = store.document(index).astype(np.int64)
        inputs = torch.from_numpy(np.concatenate([[store.eot], document[:-1]])).to(device)
        done = 0
        while done < len(document):
            begin = 0 if done == 0 else done + stride - block
            end = min(len(document), begin + block)
            probabilities = torch.softmax(model(inputs[None, begin:end])[0], dim=-1)
            order = torch.sort(probabilities, dim=-1, descending=True).indices
            for place in range(done, end):
                row = place - begin
                token = int(document[place])
                logs.append(float(torch.log(probabilities[row, token])))
                ranks.append(int((order[row] == token).nonzero()))
            done = end
    return np.array(logs), np.array(ranks)


def synthetic_store(folder, vocabulary, documents, mean_length):
    """Documents of random lengths and random tokens, the same every time."""
    random = np.random.default_rng(0)
    dtype = np.uint16
    lengths = np.maximum(2, random.lognormal(np.log(mean_length) - 0.32, 0.8, documents).astype(int))
    texts = [np.append(random.integers(0, vocabulary - 1, n - 1), vocabulary - 1).astype(dtype) for n in lengths]
    return write_store(folder, texts, name="synthetic", tokenizer="none", vocab_size=vocabulary, eot=vocabulary - 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", type=int, default=257)
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--mean-length", type=int, default=480, help="tokens a document")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--block", type=int, default=128)
    parser.add_argument("--stride", type=int, default=96)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3, help="the fastest of so many rounds counts")
    parser.add_argument("--device", default="cpu")
    wanted = parser.parse_args()
    sizes = {name: getattr(wanted, name) for name in ("layers", "heads", "width", "block")}
    shape = Gpt(**sizes, weight_std=0.1, embedding_std=0.1)
    model = GPT(shape, wanted.vocabulary).eval().to(wanted.device)
    with tempfile.TemporaryDirectory() as folder:
        store = synthetic_store(f"{folder}/store", wanted.vocabulary, wanted.documents, wanted.mean_length)
        documents = np.arange(len(store))
        windows = unit_windows(store.offsets[:-1], store.lengths, wanted.block, wanted.stride)
        window = {"block": wanted.block, "stride": wanted.stride, "device": wanted.device}
        seconds = {"packed": [], "straightforward": []}
        for _ in range(wanted.rounds):
            began = time.perf_counter()
            scores = score(model, store, windows, store.offsets, documents, batch_tokens=wanted.batch_tokens, label="packed")
            seconds["packed"].append(time.perf_counter() - began)
            began = time.perf_counter()
            logs, ranks = straightforward(model, store, documents, **window)
            seconds["straightforward"].append(time.perf_counter() - began)
    bits = [smoothed_bits(values, ALPHA, wanted.vocabulary) for values in (scores.log_probability, logs)]
    tokens, difference = len(logs), float(np.abs(bits[0] - bits[1]).max())
    where = f"{torch.get_num_threads()} threads, {wanted.device}"
    print(f"V = {wanted.vocabulary:,}, {tokens:,} tokens in {wanted.documents:,} documents, {where}")
    for name, times in seconds.items():
        print(f"{name:16s} {tokens / min(times):12,.0f} tokens/s")
    print(f"ratio            {min(seconds['straightforward']) / min(seconds['packed']):12.1f}")
    print(f"largest difference in loss {difference:.1e} bits; ranks that differ: {int((scores.rank != ranks).sum())}")


if __name__ == "__main__":
    main()
