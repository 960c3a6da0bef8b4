"""Keeping the experts' load even with a loss or with a bias: what evenness costs, and what is left of specialisation.

Wang et al. 2024 (figure 2): an auxiliary loss buys evenness with perplexity, more of one for less of the other; the bias lies
off that curve. DeepSeek-V3 section 4.5.3: it is the scope that matters, a loss over the whole batch does as well as the bias,
one within each sequence does worse; figure 9: without a loss, domains use visibly different experts.

All arms have V3's router (sigmoid, normalised gates, 2 of 4 groups), the same seeds and the same text. Swept: the weight α of
the loss over the batch and within sequences, the speed γ of the bias with the sign rule and with the proportional one.
"""

from minids.lab.analysis.routing import load_entropy, relative_load, specialisation
from minids.lab.studies.base import COMMON, trained
from minids.lab.studies.compare import above, below
from minids.lab.studies.study import Finding, Job, Outcome, Study, Summary

BATCH_WISE, SEQUENCE_WISE = (0.01, 0.1, 0.3, 1.0), (0.1, 0.3)
SIGN, PROPORTIONAL = (0.001, 0.003, 0.01, 0.03), (0.01, 0.03)
EVEN = 0.15  # global MaxVio up to which a load counts as even here


def _arms() -> dict[str, dict]:
    arms = {"none": dict(balance="none")}
    for alpha in BATCH_WISE:
        arms[f"batch loss {alpha:g}"] = dict(balance="aux_loss", seq_aux=False, aux_loss_alpha=alpha)
    for alpha in SEQUENCE_WISE:
        arms[f"sequence loss {alpha:g}"] = dict(balance="aux_loss", seq_aux=True, aux_loss_alpha=alpha)
    for rule, speeds in (("sign", SIGN), ("proportional", PROPORTIONAL)):
        for speed in speeds:
            name = f"bias {speed:g}" + (" proportional" if rule == "proportional" else "")
            arms[name] = dict(balance="bias", bias_update_rule=rule, bias_update_speed=speed, aux_loss_alpha=0.0)
    arms["bias 0.003 + sequence loss 0.0001"] = dict(balance="bias", bias_update_speed=0.003, aux_loss_alpha=0.0001)  # V3's
    return {name: {"model": model} for name, model in arms.items()}


def run(settings: dict, job: Job) -> Outcome:
    _, numbers, found, curves = trained(settings, job)
    by_domain = found.domain_counts  # (D, layers, E)
    numbers["specialisation"] = float(specialisation(by_domain).mean())
    numbers["p_value"] = found.specialisation_test().p_value
    numbers["domain_load"] = float(relative_load(by_domain).max(axis=-1).mean())  # of a domain's busiest expert
    numbers["domain_entropy"] = float(load_entropy(by_domain).mean())
    details = {"relative_load": dict(zip(found.routed, relative_load(by_domain).round(3).tolist(), strict=True))}
    return Outcome(numbers, curves, details)


def findings(arms: dict[str, dict[str, Summary]]) -> list[Finding]:
    loss, vio, bits = ({name: arm[n] for name, arm in arms.items()} for n in ("loss", "max_vio", "specialisation"))

    def lowest(names, number=loss):
        return min(names, key=lambda name: number[name].mean)

    losses = [name for name in arms if name.startswith(("batch", "sequence"))]
    biases = [name for name in arms if name.startswith("bias") and "+" not in name]
    with_bias = [name for name in arms if name.startswith("bias")]
    even = [name for name in with_bias if vio[name].mean <= EVEN] or [lowest(with_bias, vio)]
    alone = [name for name in even if name in biases] or [lowest(biases, vio)]
    ours, pure, theirs = lowest(even), lowest(alone), lowest(losses)
    speeds = f"bias {SIGN[0]:g}", lowest([name for name in biases if "prop" not in name], vio), f"bias {SIGN[-1]:g}"
    slow, _, fast = (vio[name].mean > EVEN for name in speeds)
    wide, narrow = (lowest([name for name in losses if name.startswith(kind)]) for kind in ("batch", "sequence"))
    found = [Finding(f"a bias keeps global MaxVio at or below {EVEN}", vio[ours].mean <= EVEN, f"{ours}: {vio[ours]}")]
    claim = "the loss with an even bias is not above the best with an auxiliary loss"
    found.append(below(claim, loss[ours], loss[theirs], f"{ours} and {theirs}: "))
    same = below("nor is it with the bias alone", loss[pure], loss[theirs], f"{pure} and {theirs}: ")
    found.append(same if vio[pure].mean <= EVEN else same._replace(holds=False))
    claim = "the bias is more even than the auxiliary loss that is best for the loss"
    found.append(below(claim, vio[pure], vio[theirs], f"MaxVio of {pure} and {theirs}: "))
    claim, largest = "the domains use different experts (p < 0.01 for every seed)", max(arms[ours]["p_value"].values)
    found.append(Finding(claim, largest < 0.01, f"{ours}: {bits[ours]} bits, largest p {largest:g}"))
    claim = "V3's speed of the bias, 0.001, is too slow for a run this short, and 0.03 too fast to settle"
    found.append(Finding(claim, slow and fast, "MaxVio " + "; ".join(f"{name}: {vio[name]}" for name in speeds)))
    claim = "a loss over the batch is not above one within sequences (the best weight of each)"
    found.append(below(claim, loss[wide], loss[narrow], f"{wide} and {narrow}: "))
    claim = "with the bias, domains are told apart by their experts better than with the loss within sequences"
    found.append(above(claim, bits[pure], bits[narrow], f"bits of {pure} and {narrow}: "))
    return found


STUDY = Study(
    question="does a bias keep the experts' load even without what an auxiliary loss costs?",
    arms=_arms(),
    run=run,
    shown=("loss", "max_vio", "max_vio_batch", "specialisation", "p_value"),
    common=COMMON,
    findings=findings,
)
