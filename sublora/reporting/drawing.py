"""The method in one drawing, with the numbers of a certificate."""

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from sublora.certificate.schema import Certificate
from sublora.reporting.figures import BLUE, GREEN, GREY, ORANGE, drawn
from sublora.reporting.reading import VACUOUS, gain_in_words, headline, shown, units_name


@drawn(6.6)
def method_drawing(certificate: Certificate, *, ax: Axes) -> None:
    """From seeds and trained coordinates to a bound, top to bottom.

    To see: what comes from seeds (grey) is public and free; all that was learnt passes through the message (orange), whose bits are
    paid for; what is scored (blue) is decoded from the message; the bound (green) is the score and the price together.
    """
    bound, params = headline(certificate), certificate.params
    dimension, levels = params.get("subspace", {}).get("dimension"), params.get("compression", {}).get("levels")
    numbers = f"{dimension:,} numbers w" if dimension else "numbers w"
    this, many = shown(certificate, bound), units_name(certificate, bound.level)[1]
    left, right, middle = 0.25, 0.75, 0.5
    mapped = params.get("subspace", {}).get("parametrization") != "full"
    _box(ax, left, 9.2, "seeds\nrandom weights θ₀" + ",\nrandom map P" * mapped, colour=GREY)
    _box(ax, right, 9.2, f"{numbers},\ntrained on\n{bound.units:,} {many}", colour=BLUE)
    grid = params.get("compression", {}).get("quantizer") == "grid"
    becomes = "a multiple of its matrix's step" if grid else f"one of {levels or 'a few'} levels"
    _box(ax, 0.56, 7.3, f"each number becomes\n{becomes}", colour=BLUE, width=0.82)
    _box(ax, 0.56, 5.5, f"the message: a file of {certificate.message_bits // 8:,} bytes", colour=ORANGE, width=0.82)
    _box(ax, 0.43, 3.7, f"decoded: a model θ₀ + {'P ' * mapped}w", colour=BLUE, width=0.8)
    _box(ax, left, 1.7, f"its training value\n{this.training}{this.unit}", colour=BLUE)
    _box(ax, right, 1.7, f"the price of\n{certificate.message_bits:,} bits", colour=ORANGE)
    proven = VACUOUS if this.bound == VACUOUS else f"proven: at most {this.bound}{this.unit}"
    if this.reference is not None:
        proven += f"{gain_in_words(bound)}\n(the public reference alone: {this.reference})"
    _box(ax, middle, 0.0, proven, colour=GREEN, width=0.94)
    for start, end in (
        ((right, 8.4), (right, 7.95)),
        ((middle, 6.65), (middle, 5.95)),
        ((middle, 5.05), (middle, 4.15)),
        ((left, 3.25), (left, 2.35)),
        ((left, 1.05), (left, 0.45)),
        ((right, 1.05), (right, 0.45)),
    ):
        _arrow(ax, start, end)
    _arrow(ax, (0.08, 8.4), (0.08, 4.15))  # the decoder has the seeds, too
    _arrow(ax, (0.91, 5.05), (0.91, 2.35))
    ax.set(xlim=(0, 1), ylim=(-0.7, 10.1))
    ax.axis("off")


def _box(ax, x: float, y: float, words: str, *, colour, width: float = 0.45) -> None:
    height = 0.42 * (1 + words.count("\n")) + 0.38
    ax.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0,rounding_size=0.03",
                                mutation_aspect=10, facecolor=(*colour, 0.15), edgecolor=colour, linewidth=1.5))  # fmt: skip
    ax.text(x, y, words, ha="center", va="center", fontsize=10.5)


def _arrow(ax, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=13, color="0.35", linewidth=1.2))
