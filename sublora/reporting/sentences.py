"""The guarantee in words, for pages, notebooks and the terminal."""

from decimal import ROUND_FLOOR, Decimal, localcontext

from sublora.certificate.schema import BITS, Certificate, LevelName, Statement
from sublora.errors import SubloraError, printable
from sublora.experiment import Pretrain, as_experiment
from sublora.reporting.reading import (
    VACUOUS,
    Shown,
    certified,
    first,
    guess_name,
    headline,
    mixed_in,
    number,
    shown,
    statement,
    units_name,
    with_unit,
)

HELD_OUT = "held out"
"""The name of a part of a classifier's examples that was drawn to be held out (`data.labelled`, which needs libraries)."""
UNITS: dict[LevelName, str] = {
    "document": "the mean loss of a document's tokens, its end of text included",
    "sequence": "the mean loss of a piece of a document, read on its own; pieces of one document are alike and their number is "
    "random, so independence and a fixed number of them are approximations",
    "token": "the loss of a token in its window; training documents follow each other in the order in which the split drew them",
    "group": "the mean loss of a group's documents, each weighing the same, whatever its length; the bounded mean is over groups, "
    "each weighing the same, whatever its number of documents: it is not the mean over documents",
    "position": "the loss of one token of the corpus in its window, whatever document it is in; unseen are the positions of this "
    "corpus that were no targets in training, each with its true context, training positions included: not new documents",
    "example": "the 0-1 error of a labelled example; examples of a task share sources, "
    "so their independence is an approximation",
}
"""What one unit is."""


TRAINED = {
    "sublora": "LoRA's weights, in a random subspace",
    "lora": "LoRA's weights",
    "subspace": "all weights, in a random subspace",
    "full": "all weights",
    "kronecker": "layers that are Kronecker products",
    "monarch": "Monarch layers",
}


def model(certificate: Certificate) -> str:
    """What the certified model is: architecture, weights, what is trained, message; of other kinds the message."""
    size = f"All that was learnt is in a message of {certificate.message_bits // 8:,} bytes."
    try:
        experiment = as_experiment(certificate.params)
    except SubloraError:  # another version made it
        return size
    if not isinstance(experiment, Pretrain) or (trained := TRAINED.get(experiment.subspace.parametrization)) is None:
        return size
    from sublora.models import model_weights  # torch takes seconds to import

    net, corpus, dimension = experiment.model, certificate.corpus, experiment.subspace.dimension
    heads = f", {net.heads} heads" if net.architecture == "gpt" else ""
    shape = f"{net.layers} {'layer' if net.layers == 1 else 'layers'}{heads} and width {net.width}"
    article = "an" if net.architecture == "lstm" else "a"
    text = f"The model is {article} {net.architecture.upper()} of {shape}, which reads {net.block:,} {corpus.unit}s at a time"
    text += {"forward": "", "backward": ", from the end of a document", "permutation": ", in permuted order"}[net.direction]
    text += ", and adds to the public document code." if net.residual else "."
    text += f" It has {model_weights(net, corpus.vocab_size):,} weights{'' if net.bias else ' at most'}. Training moves {trained}"
    return f"{text}{f': {dimension:,} coordinates' if dimension else ''}. {size}"


def guarantee(certificate: Certificate) -> str:
    """The headline statement in one sentence, or, if it is vacuous, that it guarantees nothing."""
    return sentence(certificate, headline(certificate))


def reading_order(certificate: Certificate) -> list[str]:
    """Which number of a certificate to look at first, and why, then which, in sentences."""
    bound = headline(certificate)
    this, (one, many) = shown(certificate, bound), units_name(certificate, bound.level)
    inequality, value = this.inequality, with_unit(this.bound, this.unit)
    assumes = {
        "unseen": "It assumes nothing about the text, because the training set was drawn at random, once.",
        "iid": f"It assumes that {many} are independent draws from one source.",
        "pool": f"It assumes nothing about the text. It counts the training {many}, too.",
        "martingale": "It assumes a source that draws each token given those before it, but not that tokens are independent.",
    }
    lines = [
        f"First the headline: {value}, by {inequality} ({bound.assumption}). {assumes[bound.assumption]} The headline is by"
        f" {inequality}, whatever the other inequalities say: that was fixed before anything was measured."
    ]
    if bound.nonvacuous:
        lines[0] += f" It is better than {guess_name(bound)}, {with_unit(this.guess, this.unit)}."
    else:
        lines[0] += f" It says nothing: it is not below {guess_name(bound)}, {with_unit(this.guess, this.unit)}."
    if this.held_out is not None:
        measured = f"Then the held-out value, {this.held_out}{this.unit}. It is measured, not proven."
        lines.append(f"{measured} What lies between the two is the price of the proof.")
    if this.gain is not None:
        lines.append(f"Then the certified gain over the public reference: {this.gain}. It says whether the message adds anything.")
    others = {b.assumption for b in certified(certificate) if b.metric == bound.metric} - {bound.assumption}
    if "iid" in others:
        lines.append(f"Look at iid for what a fresh {one} costs, if you grant that {many} are independent draws.")
    if "pool" in others:
        lines.append(f"Look at pool last: it counts the training {many}, too, and no held-out value estimates it.")
    beside = [b.inequality for b in certified(certificate) if b.metric == bound.metric and b.inequality != bound.inequality]
    if beside:
        names = ", ".join(name.replace("_", " ") for name in dict.fromkeys(beside))
        lines.append(
            f"The other inequalities ({names}) are there to compare. {_papers(bound)} The smallest of several bounds is not a bound"
            f" at {confidence(certificate.delta)}."
        )
    return lines


def _papers(bound: Statement) -> str:
    return "Azuma's is the paper's for tokens." if bound.level == "token" else "Hoeffding's is the paper's."


def guarantee_bytes(certificate: Certificate) -> str | None:
    """The headline in bits per byte, where a token is no byte; None where it is, or where they are not stated.

    Bits per token of different tokenizers cannot be compared. Those per byte can.
    """
    bound = next((bound for bound in certified(certificate) if bound.metric == "bpb"), None)
    return None if bound is None else f"In bits per byte, which other tokenizers share: {_lower(sentence(certificate, bound))}"


def guarantee_iid(certificate: Certificate) -> str | None:
    """The statement about a fresh document or example, with its assumption; None if the certificate has none."""
    bound = first(certificate, "iid")
    return None if bound is None else sentence(certificate, bound)


def sentence(certificate: Certificate, bound: Statement) -> str:
    """One statement of a certificate, in bits or an error, as an English sentence, behind one about shuffled tokens if they are."""
    window = certificate.params.get("corpus", {}).get("shuffle")
    shuffled = f"Before the split, each document's tokens were shuffled within windows of {window:,}. " if window else ""
    return shuffled + _sentence(certificate, bound)


def _sentence(certificate: Certificate, bound: Statement) -> str:
    many = units_name(certificate, bound.level)[1]
    bits, sure = certificate.message_bits, f"{confidence(certificate.delta)} confidence over the"
    model = f"the model, stored in {bits // 8:,} bytes ({bits:,} bits),"
    conditional = certificate.public.condition is not None
    subject = _subject(certificate, bound)
    opening = {
        "unseen": f"With {sure} random split",
        "pool": f"With {sure} random split",
        "iid": f"Assume that {many} are independent draws from one source, as the paper does"
        + (", and were drawn independently of the pretrained base" if conditional else "")
        + classes_alone(certificate)
        + f". Then, with {sure} source",
        "martingale": ("Assume that the text was drawn independently of the pretrained base. Then, with" if conditional else "With")
        + f" {sure} source, and without assuming that its tokens are independent",
    }[bound.assumption]
    this = shown(certificate, bound)
    value, guess = (with_unit(text, this.unit) for text in (this.bound, this.guess))
    guessing = "always answering the commonest label" if bound.level == "example" else "guessing uniformly"
    if not bound.nonvacuous:
        what = "The bound is vacuous" if value == VACUOUS else f"The bound is {value}, which is vacuous"
        about = subject.removesuffix(" from that source")  # none was named
        return f"This certificate guarantees nothing about {about}. {what}: {guessing} gets {guess}.{_beside(certificate, bound)}"
    if bound.metric in BITS:
        text = f"{opening}, {model} predicts {subject} at {value} or better on average. {_capital(guessing)} costs {guess}."
        return text + _beside(certificate, bound)
    return f"{opening}, {model} has a {this.metric} of at most {value} on {subject}. {_capital(guessing)} has {guess}."


def beside(this: Shown) -> str:
    """What the reference's value is, and what the message is proven to add to it, in a few words."""
    gains = {None: "", "none": "; no certified gain: zero bits are better"}
    return f"the public reference on training text, zero bits{gains.get(this.gain, f'; certified gain {this.gain}')}"


def _subject(certificate: Certificate, bound: Statement) -> str:
    """What a statement speaks of, as the object of a sentence about the model."""
    one, many = units_name(certificate, bound.level)
    here = " of this corpus" if bound.level == "position" else ""
    context = here and ", each with its true context (nothing is said of new documents)"
    return {
        "unseen": f"the {(bound.pool or 0) - bound.units:,} {many}{here} that it was not trained on{context}",
        "pool": f"all {bound.pool or 0:,} {many}{here or ' of the pool'}, its {bound.units:,} training {many} included{context}",
        "iid": f"a fresh {one} from that source",
        "martingale": f"the next {one} in the training contexts",
    }[bound.assumption]


def _beside(certificate: Certificate, bound: Statement) -> str:
    """The same in a sentence, after a space; empty where there is no reference.

    The reference's value is measured on training text. The gain is not against that: it is about what the bound speaks of.
    """
    this = shown(certificate, bound)
    if this.reference is None:
        return ""
    subject = _subject(certificate, bound).removesuffix(" from that source").replace("that it was", "that the model was")
    gains = {None: "", "none": "; the message is not proven to add anything, so zero bits are better"}
    than = "the base model" if bound.reference == "base" else "the reference"
    better = f"; on {subject}, the mixture is proven to be better than {than} by {this.gain}{this.unit} or more on average"
    name = "The base model" if bound.reference == "base" else f"The public {bound.reference} reference"
    name += f",{mixed_in(certificate, bound)}," if mixed_in(certificate, bound) else ""
    costs = f"{name} costs no bits and is mixed with the model. It gets {this.reference}{this.unit} on training text by itself"
    return f" {costs}{gains.get(this.gain, better)}."


def confidence(delta: float) -> str:
    """1 - delta in percent, rounded down: never 100%."""
    with localcontext(rounding=ROUND_FLOOR):
        sure = (100 - 100 * Decimal(repr(delta))).quantize(Decimal("1e-6"))
    return f"{sure.normalize():f}%"


def small_print(certificate: Certificate) -> str:
    """How to read several statements at once, and the headline's inequality and smoothing."""
    bound, sure = headline(certificate), confidence(certificate.delta)
    text = (
        f"Each statement holds with {sure} confidence by itself. All of them together hold with less confidence,"
        f" and the smallest of several bounds is not itself a {sure} bound. The headline always uses the"
        f" {bound.inequality.replace('_', ' ')} inequality, whatever the others say."
    )
    if bound.alpha is not None:
        text += f" Predictions are smoothed with α = {bound.alpha:g}."
    if bound.evaluated < bound.units:
        many = units_name(certificate, bound.level)[1] if bound.level != "document" else "documents"
        text += (
            f" The loss was measured on {bound.evaluated:,} of the {bound.units:,} training {many};"
            " the bounds include the price of that."
        ) + f" {drawn(certificate)}"
    if (paying := statement(certificate, "iid") or statement(certificate, "martingale")) is not None:
        text += (
            f" {_capital(paying.assumption)} bounds pay for {paying.configurations:,} configurations that could have been chosen"
            " after a look at the data. No verification can show whether there were more."
        )
    if (drawn_from := statement(certificate, "unseen") or statement(certificate, "pool")) is not None:
        text += f" Unseen and pool bounds need {_split_needed(drawn_from)}. No verification can show whether more were tried."
    return " ".join(filter(None, (text, base(certificate), condition(certificate))))


def base(certificate: Certificate) -> str:
    """Which pretrained model a message starts from, and since when it is public; empty where there is none."""
    sha256, model = certificate.public.base_weights_sha256, certificate.params.get("model", {})
    if certificate.public.base != "transformers" or certificate.alpha is None or sha256 is None:
        return ""
    since = model.get("public_since")
    said = "" if since is None else f" The maker says that it is public since {since}, which nobody can verify."
    return f"The base model is {model.get('source')}, with the SHA-256 {sha256} of its weights.{said}"


def classes_alone(certificate: Certificate) -> str:
    """What iid assumes of the labels where nobody fixed the classes before; empty elsewhere."""
    classes = getattr(certificate.public, "classes", [])
    if getattr(certificate.public, "classes_from", None) is None:
        return ""
    return f", and that the source has no other labels than the {len(classes)} that the examples have"


def classes(certificate: Certificate, most: int = 12) -> str | None:
    """The classes' names, by number, none of which can steer what shows it; None where there are none."""
    if (names := getattr(certificate.public, "classes", None)) is None:
        return None
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(printable(name[:60]) for name in names[:most]) + more


def _split_needed(bound: Statement) -> str:
    seeds = bound.configurations
    return "a split that was drawn once" if seeds == 1 else f"a split whose seed could have been chosen among {seeds:,} at most"


def drawn(certificate: Certificate) -> str:
    """What a reader must trust where n < m units were evaluated."""
    if getattr(certificate.public, "draw", None) == "beacon":
        how = "a public value. Trust the author that its hash was published before this value was known"
    else:
        how = "its hash. Trust the author that few messages were tried for a lucky draw"
    return f"The message was fixed, then they were drawn from {how}; nobody can check that."


def condition(certificate: Certificate) -> str:
    """What the statements need of a public base that was made from data; empty where there is none."""
    if certificate.public.condition is None:
        return ""
    return (
        "The public base, weights or tokenizer, was made from data and costs no bits. Iid and martingale bounds hold if the"
        " training documents or examples, their texts and their labels, were drawn independently of it. Pool and unseen bounds"
        " hold even if it has read the whole pool, as long as it does not depend on this split."
    )


def split(certificate: Certificate) -> str:
    """How the training split was drawn."""
    corpus, params = certificate.corpus, certificate.params
    seed = {**params.get("corpus", {}), **params.get("task", {})}.get("split_seed", 0)
    drawn_apart = next((value.n for value in certificate.held_out if value.split == HELD_OUT), None)
    apart = "" if drawn_apart is None else f"; {drawn_apart:,} others were held out before, drawn from the same seed"
    if corpus.split == "all":
        return f"all {corpus.documents:,} to train on{apart}"
    rule = "the paper's split of openwebtext" if corpus.split == "paper" else f"a random permutation from split seed {seed}"
    if corpus.groups is not None:
        of = f"groups of documents with the same {corpus.groups.column}"
        training = f"{corpus.groups.training:,} of {corpus.pool or 0:,} {of} ({corpus.documents:,} documents) to train on"
        return f"{training}, by {rule}"
    if corpus.split == "positions":
        return f"{corpus.tokens:,} of {corpus.pool or 0:,} positions in {corpus.documents:,} documents to train on, by {rule}"
    removed = f", behind {corpus.prior:,} that were removed at random" if corpus.prior else ""
    return f"{corpus.documents:,} of {corpus.pool or 0:,} to train on, by {rule}{removed}{apart}"


def meanings(certificate: Certificate) -> list[tuple[str, str]]:
    """Every number of the headline with its meaning: (number with its name, what it means)."""
    bound, bits = headline(certificate), certificate.message_bits
    this, (one, many) = shown(certificate, bound), units_name(certificate, bound.level)
    guess = f"The loss of a model that gives all {certificate.corpus.vocab_size:,} tokens the same probability."
    base = ", on top of its public base model" if bound.level == "example" or certificate.public.condition is not None else ""
    if bound.level == "example":
        guess = "The error of always answering the commonest label of the training examples."
    meaning = {
        f"{with_unit(this.bound, this.unit)}: the bound": (
            f"The average loss is at most this; that is proven, with {confidence(certificate.delta)} confidence. Lower is better."
            " The bound is computed from the training set, the size of the message and what is public. No held-out text enters."
        ),
        f"{this.training}{this.unit}: the training value": (
            f"The loss measured on training {many}, all with the same weight. The bound lies above it, because the model was chosen"
            f" by looking at these {many}, and because there are only so many."
        ),
        f"{this.guess}{this.unit}: {guess_name(bound)}": (f"{guess} A bound that is not below it is vacuous: it says nothing."),
    }
    if this.reference is not None:
        mixed = mixed_in(certificate, bound)
        code, alone = f"{bound.reference} code", f"the reference alone{mixed and f',{mixed},'}"
        if bound.reference == "base":
            code, alone = "base model", "the base model alone"
        meaning[f"{this.reference}{this.unit}: the public reference"] = (
            f"What the {code}{mixed} loses by itself on the same training {many}. It costs no bits, and the model's"
            " probabilities are mixed with it. The message pays only for what it adds."
        )
        if this.gain is not None:
            meaning[f"{with_unit(this.gain, this.unit)}: the certified gain"] = (
                "The message is not proven to add anything to the reference. Zero bits are better."
                if this.gain == "none"
                else f"With {confidence(certificate.delta)} confidence, the mixture is better than {alone} by at least this, on"
                " average over what the bound speaks of, not over training text. This statement holds by itself."
            )
    if this.held_out is not None:
        meaning[f"{this.held_out}{this.unit}: the held-out value"] = (
            f"The loss measured on {many} that were kept apart. It estimates the truth and enters no bound. It shows how much room"
            " the guarantee leaves."
            + (f" The reference alone gets {this.reference_held_out} on them." if this.reference_held_out else "")
        )
    meaning |= {
        f"{bits:,} bits: the message": (
            f"The size of the file of {bits // 8:,} bytes from which the whole model is rebuilt{base}. There are few short files,"
            " so a model in a short file cannot have memorized much. The proof rests on this."
        ),
        f"{bound.units:,} {many}: the training set": (
            f"One {one} is one unit of evidence. The more units there are, the closer the bound is to the training value."
        ),
    }
    if bound.assumption == "unseen" and bound.pool is not None:
        meaning[f"{bound.pool - bound.units:,} {many}: not trained on"] = (
            f"The rest of a pool of {bound.pool:,}. The training set was drawn from the pool at random. The guarantee needs"
            f" {_split_needed(bound)}, and that whatever is public was fixed before. It assumes nothing about the text."
        )
    return list(meaning.items())


def cost(certificate: Certificate) -> str:
    """What a run cost in minutes, by stage, on which device: from the certificate's environment."""
    seconds = certificate.environment.seconds
    stages = ", ".join(f"{stage} {number(value / 60, 1)}" for stage, value in seconds.items())
    return f"{number(sum(seconds.values()) / 60, 1)} minutes on {certificate.environment.device} ({stages})"


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
