"""
Poor man's configurator: overrides the globals of train.py by a config file.
"""

import os
import sys

here = os.path.dirname(os.path.abspath(sys.argv[0]))
for arg in sys.argv[1:] or ["config/tiny.py"]:
    if "=" not in arg:
        with open(os.path.join(here, arg)) as f:
            exec(f.read())
    else:
        key, val = arg.lstrip("-").split("=")
        assert type(globals()[key]) is type(eval(val))
        globals()[key] = eval(val)
