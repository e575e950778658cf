#!/usr/bin/env python
"""Django's command line for Ops-Core."""

import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "opscore.settings")
    try:
        from django.core.management import execute_from_command_line

        from opscore.errors import OpsCoreError

        try:
            execute_from_command_line(sys.argv)
        except OpsCoreError as error:
            sys.exit(str(error))
    except KeyboardInterrupt:
        # Ctrl-C is no error, also while the libraries are still loading.
        sys.exit(130)
