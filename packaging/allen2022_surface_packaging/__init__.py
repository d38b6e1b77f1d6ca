"""How the data was made: raw files of the Natural Scenes Dataset in, a Brain-Score release out, and then to S3.

A folder per stage, in the order in which data passes through them::

    nsd -> assemble -> verify -> publish, with report beside them

`nsd` reads the raw files, and plans a release without reading responses. `assemble` computes and writes the release.
`verify` checks a release against its manifest, against the raw files, and against other releases. `publish` uploads it.
`report` shows it. Each stage is a few modules with nouns for names.

Beside the stages: `recipe` says what a release is to hold, `release` knows every file in it, `plugin` is the only bridge to
the plugin, `cli` is the command line, and `demo` runs everything once.
"""

import os

os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")  # some disks refuse locks, and nobody else writes the same file
__version__ = "0.1.0"
