"""Entry of the executable model: `python docs/spec/model.py [--quick] [--traces]`; the parts are in `model/`."""

import sys

from model.run import main  # the folder beside this file: a package goes before a module of the same name

if __name__ == "__main__":
    sys.exit(main())
