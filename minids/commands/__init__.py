"""The commands of the core: train, generate, data. Those that look into, measure or draw are in ``minids/lab/commands``.

A command is a module with a dataclass ``Options``, whose fields are its options and whose docstrings are its help (see
``options.py``), and ``run(options, given)``, where ``given`` names the fields that were typed. Where some options set the
defaults of others it has ``defaults(typed)`` too. Whatever is slow to import is imported when the command runs.
"""
