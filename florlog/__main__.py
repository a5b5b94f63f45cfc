"""``python -m florlog`` is the command ``florlog``."""

import sys

from .commands import main

sys.exit(main())
