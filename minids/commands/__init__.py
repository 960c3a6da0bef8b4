"""The commands of ``minids``, one module each.

A module has a dataclass ``Options``, whose fields are the command's options and whose docstrings are its help, and
``run(options, given)``, where ``given`` names the options that were typed. Where some options set the defaults of others, it
has ``defaults(arguments)`` too. Whatever is slow to import is imported when the command runs.
"""
