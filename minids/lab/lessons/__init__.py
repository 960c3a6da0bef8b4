"""What the notebooks measure and check beside what their cells show: a module for some of them, named as in ``plots``.

check_NAME(answer)    judges the exercise that asks for NAME: a report, as ``minids.check`` makes them
anything else         computes, or prints, what a page talks about; a page shows in its own cells what it teaches
"""
