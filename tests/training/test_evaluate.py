"""Validation looks at the tokens it says, and compares the main model and its MTP modules on the same ones."""

import numpy as np
import pytest
import support
from small_run import RUN, close, lines, start_or_resume, write_text

from minids.checkpoint.model_folder import save
from minids.errors import MinidsError
from minids.model import IGNORE
from minids.training import exam
from minids.training.batches import spread_windows
from minids.training.corpus import Corpus, Document
from minids.training.evaluate import beside_mtp, evaluate


def nats(logits, targets):
    """-log p of each target, by hand: logits (..., V), targets (...)."""
    z = logits - logits.max(-1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    return -np.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]


@pytest.mark.parametrize("unfilled", [0, 3], ids=["whole windows", "a window that is not filled"])
def test_both_losses_are_means_over_the_tokens_that_both_predict(unfilled):
    model = support.build()
    batches = [support.batch(size=3, length=9, seed=seed) for seed in (0, 1)]
    if unfilled:
        batches[1][1][-1, -unfilled:] = IGNORE
    found = beside_mtp(model, batches)
    for k in (1, 2):
        main, mtp = [], []
        for tokens, targets in batches:
            counted = targets[:, k:] != IGNORE
            label = np.where(counted, targets[:, k:], 0)
            main.append(nats(model.logits(tokens)[:, k:], label)[counted])
            mtp.append(nats(model.mtp_logits(tokens)[k - 1], label)[counted])
        assert found[f"main_beside_mtp_{k}"] == pytest.approx(np.concatenate(main).mean(), rel=1e-12)
        assert found[f"mtp_{k}"] == pytest.approx(np.concatenate(mtp).mean(), rel=1e-12)


def test_a_model_without_modules_has_nothing_to_compare():
    model = support.build(support.TINY.replace(num_nextn_predict_layers=0))
    assert beside_mtp(model, [support.batch()]) == {}


def test_evaluation_of_a_run_repeats_its_validation_and_says_what_it_leaves_out(tmp_path):
    data = write_text(tmp_path)
    run = start_or_resume(tmp_path / "run", data, RUN.replace(steps=2))
    checkpoint = run.run()
    validated = lines(tmp_path / "run")[-1]["validation"]["rhyme"]
    for place in (tmp_path / "run", checkpoint):
        found = evaluate(place, tokens=RUN.eval_tokens)
        assert found["bits_per_byte"] == {"rhyme": pytest.approx(validated["bits_per_byte"], rel=1e-6)}
        assert found["top1_unit"] == "byte" and 0 <= found["top1_accuracy"]["rhyme"] <= 1
        assert found["exact_match"] == {} and found["line_endings"] == {}, "a number where nothing can be asked"
        assert set(found["left_out"]) == {"line endings of rhyme", *exam.KINDS}
        assert found["note"] == "" and found["data"] == data
    seen = spread_windows(run.text.held_out["rhyme"].tokens, 8, RUN.context_length, RUN.eval_tokens)
    x, y = (np.concatenate(part) for part in zip(*seen, strict=True))
    assert found["top1_accuracy"]["rhyme"] == pytest.approx((run.model.logits(x).argmax(-1) == y).mean())


def test_a_text_with_sums_is_examined_and_another_text_is_said_to_be_another(tmp_path):
    run = start_or_resume(tmp_path / "run", write_text(tmp_path), RUN.replace(steps=1))
    run.run()
    sums = tmp_path / "sums.txt"
    sums.write_text("".join(f"What is {a} + {b}?\n{a} + {b} = {a + b}.\n\n" for a in range(1, 10) for b in range(1, 10)))
    found = evaluate(tmp_path / "run", [str(sums)], 64)
    assert list(found["exact_match"]) == ["one-digit sums"] and "not the text of the run" in found["note"]
    assert "the exam's questions" in found["left_out"]["line endings of sums"]
    assert list(found["bits_per_byte"]) == ["sums"]


def test_a_folder_without_a_run_is_read_with_the_built_in_text(tmp_path, monkeypatch):
    run = start_or_resume(tmp_path / "run", write_text(tmp_path), RUN.replace(steps=1))
    save(run.model, tmp_path / "model")
    close(run)
    sums = "".join(f"What is {a} + {b}?\n{a} + {b} = {a + b}.\n\n" for a in range(1, 10) for b in range(1, 10))
    documents = tuple(Document("sums", str(i), f"{i}\n{sums}".encode()) for i in range(4))
    monkeypatch.setattr("minids.training.evaluate.load_corpus", lambda spec: Corpus(" ".join(spec), documents))
    found = evaluate(tmp_path / "model", tokens=64)
    assert found["data"] == ["builtin"] and "no run.json" in found["note"]


def test_a_text_that_changed_is_said(tmp_path):
    data = write_text(tmp_path)
    start_or_resume(tmp_path / "run", data, RUN.replace(steps=1)).run()
    with open(data[0], "a") as file:
        file.write("and let it go again.\n")
    assert "may have been trained on" in evaluate(tmp_path / "run", tokens=64)["note"]


def test_bad_requests_are_refused(tmp_path):
    start_or_resume(tmp_path / "run", write_text(tmp_path), RUN.replace(steps=1)).run()
    with pytest.raises(MinidsError, match="tokens = 0"):
        evaluate(tmp_path / "run", tokens=0)
    for file in (tmp_path / "run" / "step-000001").glob("tokenizer*"):
        file.unlink()
    (tmp_path / "run" / "step-000001" / "checksums.json").unlink(missing_ok=True)
    with pytest.raises(MinidsError, match=r"tokenizer\.json"):
        evaluate(tmp_path / "run")
