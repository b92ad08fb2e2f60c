"""Bits and milliseconds of every entropy coder: python benchmarks/coding.py

Coordinates are drawn from a distribution, quantized, coded by each coder and decoded again; `ratio` is to the symbols' empirical
entropy, `excess` the bits above it. `shortest` is what a message takes. The last rows are evenly drawn histograms, without the
shape of trained coordinates. Times are the best of three, the payload's shortening included.
"""

import time

import numpy as np
import pandas as pd

import sublora  # noqa: F401  (before anything that starts threads)
from sublora.compression.coder import CODERS, decode_symbols, encode_symbols, entropy_bits, shortest
from sublora.compression.quantizers import quantize

SIZES = (1_000, 3_025, 10_000, 50_000)
LEVELS = (3, 5, 11, 16)


def samples(size: int, levels: int):
    """(distribution, quantizer, codebook, symbols) for each kind of coordinates."""
    random = np.random.default_rng(0)
    draws = {"normal": random.normal(size=size), "laplace": random.laplace(size=size), "t3": random.standard_t(3, size=size)}
    for distribution, values in draws.items():
        for quantizer in ("kmeans", "uniform"):
            yield distribution, quantizer, *quantize(values, quantizer, levels)
    shares = random.dirichlet(np.ones(levels))
    yield "dirichlet", "none", np.arange(levels).astype(np.float16), random.choice(levels, size, p=shares)


def timed(function, *arguments):
    """(result, milliseconds of the fastest of three runs)."""
    best = np.inf
    for _ in range(3):
        begin = time.perf_counter()
        result = function(*arguments)
        best = min(best, time.perf_counter() - begin)
    return result, 1e3 * best


def rows():
    for size in SIZES:
        for levels in LEVELS:
            for distribution, quantizer, codebook, symbols in samples(size, levels):
                entropy = entropy_bits(symbols)
                chosen = shortest(symbols, codebook)[0]
                for coder in CODERS:
                    payload, encode = timed(encode_symbols, symbols, len(codebook), coder, codebook)
                    decoded, decode = timed(decode_symbols, payload, size, len(codebook), coder, codebook)
                    if not np.array_equal(decoded, symbols):
                        raise AssertionError(f"{coder} did not decode what it encoded")
                    bits = 8 * len(payload)
                    yield {
                        "d": size,
                        "L": len(codebook),
                        "distribution": distribution,
                        "quantizer": quantizer,
                        "coder": coder,
                        "shortest": coder == chosen,
                        "entropy": entropy,
                        "bits": bits,
                        "excess": bits - entropy,
                        "ratio": bits / entropy,
                        "encode ms": encode,
                        "decode ms": decode,
                    }


def main() -> None:
    table = pd.DataFrame(rows())
    with pd.option_context("display.max_rows", None, "display.width", 200, "display.float_format", "{:.4g}".format):
        print(table.to_string(index=False, float_format=lambda number: f"{number:.1f}" if number > 3 else f"{number:.4f}"))
    best = table[table["shortest"]]
    late = best[best["bits"] > 1.005 * best["entropy"] + 40]
    print(f"\nshortest payload above 1.005 entropy + 40 bits: {len(late)} of {len(best)}")
    if len(late):
        print(late.to_string(index=False, float_format="{:.4g}".format))
    print("\nmean excess bits of each coder")
    everything = pd.concat([table, best.assign(coder="shortest of four")])
    print(everything.pivot_table(index="coder", columns=["d", "L"], values="excess").round(1).to_string())
    print("\nhow often each coder is the shortest")
    print(best.groupby(["distribution", "coder"]).size().unstack(fill_value=0).to_string())
    largest = table[table["d"] == SIZES[-1]].groupby("coder")[["encode ms", "decode ms"]].max()
    print(f"\nslowest at d = {SIZES[-1]:,}, milliseconds\n{largest.round(1).to_string()}")


if __name__ == "__main__":
    main()
