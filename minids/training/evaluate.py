"""Validation: loss and bits per byte of held-out text. Model and balancing bias are left as they are.

``evaluate`` asks more, once, of a trained model: its arithmetic (``exam``) and the ends of lines (``line_endings``).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minids.backend import op
from minids.blas import one_blas_thread
from minids.checkpoint.extension import run_setting
from minids.checkpoint.latest import resolved
from minids.checkpoint.model_folder import load
from minids.checkpoint.tokenizer import Tokenizer
from minids.config import TrainConfig
from minids.errors import refuse
from minids.layers.parameters import Array
from minids.model import IGNORE, DeepSeekV3
from minids.training import exam, line_endings
from minids.training.batches import TokenStream, spread_windows
from minids.training.corpus import Corpus, load_corpus
from minids.training.metrics import bits_per_byte
from minids.training.process_group import ProcessGroup
from minids.training.run_folder import RunFolder
from minids.training.text import Text


def validation(
    model: DeepSeekV3,
    domains: dict[str, TokenStream],
    tokenizer: Tokenizer,
    batch: int,
    length: int,
    max_tokens: int | None,
    group: ProcessGroup | None = None,
) -> dict[str, dict[str, float]]:
    """Domain → its ``score``, over at most ``max_tokens`` tokens of it, and ``beside_mtp`` over a quarter of them. The
    processes of ``group`` share the batches; the numbers are the same to the last bit."""
    found, group = {}, group or ProcessGroup()
    for domain, stream in domains.items():
        batches = list(spread_windows(stream.tokens, batch, length, max_tokens))
        found[domain] = score(model, batches, tokenizer, group) | beside_mtp(model, batches[::4], group)
    return found


def score(
    model: DeepSeekV3, batches: Iterable[tuple[Array, Array]], tokenizer: Tokenizer, group: ProcessGroup | None = None
) -> dict[str, float]:
    """Of the next token: mean ``loss`` in nats per token, and ``bits_per_byte``."""
    nats, count, n_bytes = 0.0, 0, 0

    def loss(batch: tuple[Array, Array]) -> tuple[float]:
        return (model.losses(*batch, mtp=False).main,)

    batches = list(batches)
    for (_, targets), (main,) in zip(batches, (group or ProcessGroup()).spread(loss, batches), strict=True):  # (≤ B, T)
        counted = int(np.sum(targets != IGNORE))
        nats += main * counted
        count += counted
        n_bytes += tokenizer.count_bytes(targets)
    return {"loss": nats / count, "bits_per_byte": bits_per_byte(nats, n_bytes)}


def beside_mtp(model: DeepSeekV3, batches: list[tuple[Array, Array]], group: ProcessGroup | None = None) -> dict[str, float]:
    """Each MTP module's loss ``mtp_k``, and ``main_beside_mtp_k``, the main model's on the same tokens, in nats per token.

    The losses of a training step cannot be compared: eq. 24 divides module k's sum over T − k tokens by T, and the first k
    tokens, which have the least before them, are the main model's alone.
    """
    found: dict[str, float] = {}
    for k in range(1, len(model.mtp) + 1):

        def losses(batch: tuple[Array, Array], k: int = k) -> tuple[float, float, int]:
            tokens, targets = batch  # (≤ B, T) each
            same = np.where(np.arange(targets.shape[1]) < k, IGNORE, targets)
            if not (counted := int(np.sum(same != IGNORE))):
                return 0.0, 0.0, 0
            both = model.losses(tokens, same)
            return both.main, both.mtp[k - 1], counted

        main = mtp = count = 0.0
        for of_main, of_module, counted in (group or ProcessGroup()).spread(losses, batches):
            main, mtp, count = main + of_main * counted, mtp + of_module * counted, count + counted
        if count:
            found |= {f"main_beside_mtp_{k}": main / count, f"mtp_{k}": mtp / count}
    return found


def evaluate(
    checkpoint: str | Path,
    data: Sequence[str] = (),
    tokens: int = TrainConfig.eval_tokens,
    group: ProcessGroup | None = None,
) -> dict[str, Any]:
    """What the model in a run's folder, or in any Hugging Face folder, can do; ``minids evaluate`` prints it.

    ``data`` is the text whose held-out part is read, divided as for training: that of the run if nothing is named, and the
    built-in corpus where there is no run. Of each domain at most ``tokens`` tokens are read. The processes of ``group``
    share the work, and each gets the numbers.

        bits_per_byte     domain → of its held-out documents, on the windows of validation
        top1_accuracy     domain → share of the next bytes that are the model's first guess (of the next tokens, where a
                          token may be longer than a byte: ``top1_unit`` says which)
        line_endings      domain → share of lines whose true ending of three is found, by perplexity
        exact_match       kind of question → share answered to the letter
        left_out          what was not asked, and why
    """
    if tokens < 1:
        raise refuse("tokens", tokens, "must be at least 1")
    path = resolved(checkpoint)
    run = next((folder for folder in (Path(checkpoint), path.absolute().parent) if (folder / "run.json").is_file()), None)
    described = RunFolder(run).description() if run else {}
    model = load(checkpoint)
    if model.tokenizer is None:
        raise refuse("checkpoint", str(checkpoint), "has no tokenizer.json, so there is no text to read")
    own = [str(entry) for entry in described.get("data", ())]
    corpus = load_corpus(list(data) or own or ["builtin"])
    length = min(int(run_setting(path, "context_length", 256)), model.config.max_position_embeddings)
    halves = corpus.split(run_setting(path, "validation_share", TrainConfig.validation_share))
    if not own and not data:
        why = "this folder has no run.json that names its text: what is read is the built-in corpus"
    elif not data and corpus.sha256 != described["corpus"]["sha256"]:
        why = "the text is not what the run began with (other files or another Python): some of it may have been trained on"
    elif data and own != list(data):
        why = "this is not the text of the run: of its own, more may be known to the model"
    else:
        why = ""
    found = what_it_can_do(model, halves, length, tokens, group or ProcessGroup())
    return {"checkpoint": str(path), "data": list(data) or own or ["builtin"], "note": why} | found


@one_blas_thread()
def what_it_can_do(
    model: DeepSeekV3, halves: tuple[Corpus, Corpus], length: int, tokens: int, group: ProcessGroup
) -> dict[str, Any]:
    """``evaluate`` of a model, on windows of ``length`` tokens; ``halves``: its training and its held-out text."""
    training, held_out = halves
    byte_by_byte = int(model.tokenizer.byte_counts.max(initial=0)) == 1
    found: dict[str, Any] = {"bits_per_byte": {}, "top1_accuracy": {}, "top1_unit": "byte" if byte_by_byte else "token"}
    found |= {"line_endings": {}, "exact_match": {}, "left_out": {}}
    asked_endings: dict[str, list[line_endings.Item]] = {}
    for domain, stream in Text.encode(training, held_out, model.tokenizer).held_out.items():
        found["bits_per_byte"][domain], found["top1_accuracy"][domain] = _read(model, stream, length, tokens, group)
        if exam.taught(document.text for document in training.of(domain)):
            found["left_out"][f"line endings of {domain}"] = "its lines are the exam's questions and answers"
        elif items := line_endings.items(document.text for document in held_out.of(domain)):
            asked_endings[domain] = items
        else:
            found["left_out"][f"line endings of {domain}"] = "the held-out text has too few lines of 40 to 120 bytes"
    shares = group.spread(lambda items: (line_endings.accuracy(model, items),), list(asked_endings.values()))
    found["line_endings"] = {domain: share for domain, (share,) in zip(asked_endings, shares, strict=True)}
    asked = exam.questions(document.text for document in training.documents)
    found["exact_match"] = exam.exact_match(model, asked, group)
    for kind in exam.KINDS:
        if kind not in asked:
            found["left_out"][kind] = "the training text has no such problems in the words of the built-in corpus"
    return found


def _read(model: DeepSeekV3, stream: TokenStream, length: int, most: int, group: ProcessGroup) -> tuple[float, float]:
    """Held-out text → bits per byte, and how often the likeliest token is the one that comes."""

    def look(batch: tuple[Array, Array]) -> tuple[float, int, int, int]:
        tokens, targets = batch  # (≤ B, T) each
        logits = model.logits(tokens).reshape(targets.size, -1)  # (B·T, V)
        counted = targets.reshape(-1) != IGNORE
        right = int((logits.argmax(axis=-1) == targets.reshape(-1))[counted].sum())
        nats = op.cross_entropy.forward(logits, targets.reshape(-1), 1.0)[0]
        return nats, right, int(counted.sum()), model.tokenizer.count_bytes(targets)

    seen = group.spread(look, list(spread_windows(stream.tokens, 8, length, most)))
    nats, right, count, n_bytes = (sum(numbers) for numbers in zip(*seen, strict=True))
    return bits_per_byte(nats, int(n_bytes)), right / count
