"""``python -m trueup``."""

import sys

from trueup.cli.main import main

sys.exit(main())
