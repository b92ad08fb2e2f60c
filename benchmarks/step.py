"""A training step of GPT-2 small in SubLoRA's subspace, and the projector's share of it: P w, and the gradient of w.

    python benchmarks/step.py [--projector kron_qr] [--sequences 1] [--device cpu]

One sequence is the least that a step can have, so the share is the largest: the projector's time is the same for any batch.
"""

import argparse
import time

import sublora  # noqa: F401  before torch: it sets the threading

import torch  # isort: skip
import torch.nn.functional as F  # isort: skip

from sublora.experiment import Gpt, Subspace
from sublora.models import build

VOCABULARY = 50_257


def seconds(action, rounds: int, device: str) -> float:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        action()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--projector", default="kron_qr")
    parser.add_argument("--coordinates", type=int, default=50_000)
    parser.add_argument("--sequences", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="the fastest counts")
    parser.add_argument("--device", default="cpu")
    wanted = parser.parse_args()
    shape = Gpt(layers=12, heads=12, width=768, block=1024)
    model = build(shape, Subspace(projector=wanted.projector, dimension=wanted.coordinates), VOCABULARY).to(wanted.device)
    model.train()
    tokens = torch.randint(VOCABULARY, (wanted.sequences, shape.block + 1), device=wanted.device)
    weights, d = model.projector.shape
    gradient = torch.ones(weights, device=wanted.device)

    def step():
        logits = model(tokens[:, :-1])
        F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        model.coordinates.grad = None

    def project():
        w = model.coordinates.detach().requires_grad_()
        torch.autograd.grad(model.projector.matvec(w), w, gradient)

    whole, part = seconds(step, wanted.rounds, wanted.device), seconds(project, 5 * wanted.rounds, wanted.device)
    where = f"{torch.get_num_threads()} threads" if wanted.device == "cpu" else torch.cuda.get_device_name()
    print(f"{where}, {wanted.sequences} x {shape.block:,} tokens; {wanted.projector}, D = {weights:,}, d = {d:,}")
    print(f"step      {whole:9.3f} s")
    print(f"projector {part:9.4f} s, {100 * part / whole:.2f}% of the step")


if __name__ == "__main__":
    main()
