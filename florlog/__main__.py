"""``python -m florlog`` is the command ``florlog``."""

import sys

from ._cli import main

sys.exit(main())
