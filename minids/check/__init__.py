"""Is my function right, and if not, what is wrong with it? For exercises, and for this package's own tests.

    check.ok(check.gradient(forward, backward, {"x": x, "gain": gain}))      # backward against central differences
    check.ok(check.against(rmsnorm.forward, my_rmsnorm, x, gain))            # a function against its reference
    check.ok(check.close(mine, right, name="logits"))                        # an array against an array

Each returns a ``Report``: true when all is right, else a text that names the wrong array, where it is wrong, by how much, and
the likely cause, which was tried on the numbers: undoing it makes them right. ``case`` defines the error, ``differences`` the
numerical gradient, ``hypotheses`` the mistakes that are recognised.
"""

from minids.check.gradients import gradient
from minids.check.hypotheses import HYPOTHESES
from minids.check.outputs import against, close
from minids.check.report import Finding, Report, ok

__all__ = ["HYPOTHESES", "Finding", "Report", "against", "close", "gradient", "ok"]
