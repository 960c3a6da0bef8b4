"""The papers' ablations at a size that a laptop trains: what is compared, over which seeds, what came out.

study, registry     what a study is: a question, arms, one function that runs an arm with a seed; and the list of them
runner, store       runs what is missing, in as many processes as there are cores; keeps each finished run in a file
training            the one training loop that the studies share
results/            what the full runs gave, as data; figures and notebooks draw from it

    minids study                                # what there is to run
    minids study balance --seeds 0 1 2          # runs it, or goes on where it was stopped
    minids.lab.studies.results("balance")           # what the full run gave, without running anything
"""

from minids.lab.studies.store import results

__all__ = ["results"]
