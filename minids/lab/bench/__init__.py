"""Speed, side by side with the peers: ``minids bench WHAT``, each by the module of its name.

A speed alone says as much about the machine, and about who else was using it, as about the code. A ratio of two things that
took turns in the same minute, and the share of what the machine can do at best, say what the code is worth.
"""
