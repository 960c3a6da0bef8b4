"""Sums that are kept for the exam (``exam.py``): a corpus that writes problems leaves them out of its training text.

Only those of two-digit numbers can be kept back: there are too few small ones to learn their table from a part of it.
"""

import hashlib

SHARE = 0.1
"""Of all two-digit problems."""


def reserved(a: int, operation: str, b: int) -> bool:
    """Whether ``a operation b`` belongs to the exam; 47 + 25 does where 25 + 47 does. A problem is two-digit if both numbers
    are, a product or a quotient if its first number is. The same in every version and on every machine."""
    if operation in "+*":
        a, b = max(a, b), min(a, b)
    if a < 10 or (operation in "+-" and b < 10):
        return False
    digest = hashlib.sha256(f"{a} {operation} {b}".encode()).digest()
    return digest[0] < 256 * SHARE
